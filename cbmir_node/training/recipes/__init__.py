"""The recipes: one module for the default model, one for each published system."""

from __future__ import annotations

from cbmir_node.training.recipe import Recipe
from cbmir_node.training.recipes import attention_hash, default, nikitha, qayyum, tag_prefilter

_RECIPES: dict[str, Recipe] = {
    module.RECIPE.defaults.recipe: module.RECIPE
    for module in (default, qayyum, nikitha, attention_hash, tag_prefilter)
}


def recipe_named(name: str) -> Recipe:
    """Return one of `cbmir_node.training.settings.RECIPES`."""
    return _RECIPES[name]
