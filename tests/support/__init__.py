"""What tests share: small real things, hand-made batches, jobs that misbehave."""
