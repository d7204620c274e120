"""`python -m onestage.cli`, for torchrun and accelerate."""

from onestage.cli import app

app()
