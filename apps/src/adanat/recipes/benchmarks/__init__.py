"""The paper's four benchmarks: recipes with the published settings, their plan, a trial run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks.recipes import cc3m, coco, in256, in512
from adanat.recipes.benchmarks.smoke import smoke

BENCHMARKS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {"in256": in256, "in512": in512, "coco": coco, "cc3m": cc3m}
)
"""Each builds its recipe anew."""

__all__ = ["BENCHMARKS", "smoke"]
