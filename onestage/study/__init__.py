"""Studies: many recipes on the same ground, compared fairly."""
