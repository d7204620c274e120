"""The worlds that a study can take place in, one a file."""
