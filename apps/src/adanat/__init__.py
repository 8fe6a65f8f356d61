"""AdaNAT, from raw images to the evaluated policy: the application over the packages."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adanat.pipeline import NATPipeline

__all__ = ["NATPipeline"]


def __getattr__(name: str) -> object:
    # On demand: the stages' modules import this package, and need not wait for all of it.
    if name == "NATPipeline":
        from adanat.pipeline import NATPipeline

        return NATPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
