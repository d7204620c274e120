"""`python -m onestage`, for torchrun and accelerate."""

from onestage.cli import app

app()
