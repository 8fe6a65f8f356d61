"""Recipes by name: data, sizes, training, policy and judgement of a whole run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from adanat.errors import AdanatError
from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks import BENCHMARKS
from adanat.recipes.digits import digits
from adanat.recipes.emoji_scenes import emoji_scenes, emoji_scenes_text, tiny_text
from adanat.recipes.fashion_mnist import (
    fashion_mnist,
    fashion_mnist_quick,
    fashion_mnist_smoke,
)
from adanat.recipes.tiny import tiny

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "digits": digits,
        "emoji-scenes": emoji_scenes,
        "emoji-scenes-text": emoji_scenes_text,
        "fashion-mnist": fashion_mnist,
        "fashion-mnist-quick": fashion_mnist_quick,
        "fashion-mnist-smoke": fashion_mnist_smoke,
        "tiny": tiny,
        "tiny-text": tiny_text,
        **BENCHMARKS,
    }
)
"""Each builds its recipe anew."""


def get_recipe(name: str) -> Recipe:
    """The recipe of a name. Raises AdanatError for an unknown one."""
    if name not in RECIPES:
        raise AdanatError(f"there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]()


__all__ = ["RECIPES", "Recipe", "get_recipe"]
