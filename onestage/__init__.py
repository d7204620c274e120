"""Fine-tune a language model in one stage on any mixture of feedback."""

from onestage.training.recipe import Recipe as Recipe
from onestage.training.recipe import load_recipe as load_recipe
from onestage.training.recipe import parse_recipe as parse_recipe
