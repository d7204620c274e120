"""Fine-tune a language model in one stage on any mixture of feedback.

from onestage import load_recipe, run_recipe
run_recipe(load_recipe("recipe.yaml"), Path("runs/first"))
"""

from onestage.recipe import Recipe as Recipe
from onestage.recipe import load_recipe as load_recipe
from onestage.recipe import parse_recipe as parse_recipe


def __getattr__(name: str) -> object:
    """What runs recipes, loaded when asked for: it brings torch and transformers along."""
    if name in ("run_recipe", "Session"):
        from onestage import run

        return getattr(run, name)
    if name == "run_stages":
        from onestage.stages import run_stages

        return run_stages
    raise AttributeError(f"module 'onestage' has no attribute {name!r}")
