"""The images, and their captions where those are the condition."""

from dataclasses import dataclass

from adanat.data import EMOJI_SCENES, emoji_groups
from adanat.recipes.parts.checks import require_positive


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which images, at which size."""

    source: str
    """Name of the data source: `digits`, `fashion-mnist` or `emoji-scenes`."""
    image_size: int
    """Side in pixels; smaller images are padded with black on all sides."""
    num_classes: int
    """Number of classes; labels run from 0 to num_classes - 1."""

    def __post_init__(self) -> None:
        require_positive("data", image_size=self.image_size, num_classes=self.num_classes)


@dataclass(frozen=True, kw_only=True)
class EmojiScenesRecipe(DataRecipe):
    """The generated data set `emoji-scenes`: which of its endless row of pictures."""

    source: str = EMOJI_SCENES
    num_classes: int = len(emoji_groups())
    num_fit: int
    num_validation: int
    num_test: int
    seed: int = 0
    """Seed of the scenes, not of the training."""

    @property
    def num_images(self) -> dict[str, int]:
        """Images of each split."""
        return {"fit": self.num_fit, "validation": self.num_validation, "test": self.num_test}


@dataclass(frozen=True, kw_only=True)
class PreparedRecipe(DataRecipe):
    """A data set that `adanat prepare` has made ready, in the folder that --data-dir names."""

    source: str
    """Name of the data set: `imagenet`, `coco` or `cc3m`."""


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """Captions as the condition, instead of the classes."""

    encoder: str | None = None
    """Name of a text encoder (`adanat.text.load_text_encoder`); None: the classes condition."""
    num_tokens: int = 24
    """Feature tokens of a caption; longer captions are cut off."""
    stored: bool = True
    """Whether features are encoded once and kept on disk, or anew for every batch."""
    scorer_steps: int = 1500
    """Training steps of the image-text scorer of the evaluation."""

    def __post_init__(self) -> None:
        require_positive("text", num_tokens=self.num_tokens, scorer_steps=self.scorer_steps)
