"""Scenes of one to four emoji on a coloured ground: drawn by chance, described, painted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from adanat.data.emoji import Emoji, EmojiFont, emoji_groups

Option = TypeVar("Option")

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 512

GROUNDS = {
    "white": (245, 245, 245),
    "grey": (140, 140, 145),
    "black": (25, 25, 28),
    "dark blue": (24, 42, 112),
    "light blue": (150, 205, 240),
    "dark green": (16, 84, 48),
    "light green": (160, 220, 150),
    "turquoise": (40, 180, 175),
    "yellow": (245, 220, 90),
    "orange": (240, 150, 50),
    "red": (190, 35, 40),
    "pink": (245, 175, 200),
    "purple": (110, 55, 150),
    "brown": (110, 75, 45),
}
_GROUND_JITTER = 10  # levels around the named colour

_SIZES = {"small": (0.48, 0.58), "": (0.70, 0.82), "large": (0.92, 1.00)}  # share of the cell
_POSES = {"": (-12, 12), "tilted": (30, 60), "upside-down": (168, 192)}  # degrees
_MAX_EXTENT = 1.15  # of the turned square in cells; its corners are mostly empty
_SYMMETRIC_GROUP = "shapes"  # a tilted circle is none
_RELATIONS = ("left of", "right of", "above", "below")
_OPPOSITES = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
_COUNTS_ALONE = (1, 1, 1, 2, 3, 4)  # as often as they stand here
_COUNTS_TOGETHER = ((1, 1), (1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
_NUMBERS = {2: "two", 3: "three", 4: "four"}


class Placement(NamedTuple):
    """Where one emoji lies, in shares of the picture's side from the top left."""

    x: float
    y: float
    side: float
    angle: float
    """Degrees, counter-clockwise."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One to four equal emoji."""

    emoji: Emoji
    size: str
    pose: str
    placements: tuple[Placement, ...]

    @property
    def phrase(self) -> str:
        """Such as "a small red apple" or "two fish"."""
        count = len(self.placements)
        noun = self.emoji.name if count == 1 else self.emoji.plural
        words = " ".join(word for word in (self.size, self.pose, noun) if word)
        return with_article(words) if count == 1 else f"{_NUMBERS[count]} {words}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One or two figures on a ground.

    Attributes:
        figures: the second one stands `relation` the first: "the first left of the second".
        relation: how the first figure lies to the second; empty for a single one.
        ground: a name of `GROUNDS`.
        colour: the ground's colour, near its name's.
    """

    figures: tuple[Figure, ...]
    relation: str
    ground: str
    colour: tuple[int, int, int]

    @property
    def caption(self) -> str:
        """Such as "a red apple left of two fish on a dark blue ground"."""
        figures = f" {self.relation} ".join(figure.phrase for figure in self.figures)
        return f"{figures} on {with_article(self.ground)} ground"

    @property
    def label(self) -> int:
        """The group of the figure that is named first."""
        return list(emoji_groups()).index(self.figures[0].emoji.group)

    def describe(self) -> dict[str, Any]:
        """JSON values that say what is where."""
        return {
            "ground": {"name": self.ground, "rgb": list(self.colour)},
            "relation": self.relation,
            "figures": [
                {
                    "emoji": figure.emoji.character,
                    "name": figure.emoji.name,
                    "group": figure.emoji.group,
                    "size": figure.size,
                    "pose": figure.pose,
                    "placements": [
                        {key: round(value, 4) for key, value in place._asdict().items()}
                        for place in figure.placements
                    ],
                }
                for figure in self.figures
            ],
        }


def random_scene(random: np.random.Generator) -> Scene:
    """Draw a scene; the same generator state gives the same scene."""
    ground = _choose(list(GROUNDS), random)
    jitter = random.integers(-_GROUND_JITTER, _GROUND_JITTER + 1, size=3)
    red, green, blue = (int(level) for level in np.clip(GROUNDS[ground] + jitter, 0, 255))
    groups = list(emoji_groups().values())
    first = _choose(_choose(groups, random), random)
    figures: tuple[Figure, ...]
    if random.random() < 0.5:
        figures = (_figure(first, _choose(_COUNTS_ALONE, random), (0.0, 0.0, 1.0, 1.0), random),)
        relation = ""
    else:
        second = first
        while second == first:
            second = _choose(_choose(groups, random), random)
        relation = _choose(_RELATIONS, random)
        counts = _choose(_COUNTS_TOGETHER, random)
        parts = zip((first, second), counts, _halves(relation), strict=True)
        figures = tuple(_figure(emoji, count, half, random) for emoji, count, half in parts)
    return Scene(figures=figures, relation=relation, ground=ground, colour=(red, green, blue))


def paint(scene: Scene, image_size: int, font: EmojiFont) -> Image.Image:
    """Paint a scene as an RGB picture, at twice the size and averaged, so that edges are smooth.

    Args:
        scene: what to paint.
        image_size: side in pixels, in [32, 512].
        font: draws the emoji.

    Raises:
        ValueError: `image_size` is out of range.
    """
    if not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise ValueError(
            f"image_size must be in [{MIN_IMAGE_SIZE}, {MAX_IMAGE_SIZE}], got {image_size}"
        )
    canvas = Image.new("RGB", (2 * image_size, 2 * image_size), scene.colour)
    for figure in scene.figures:
        glyph = font.draw(figure.emoji)
        for place in figure.placements:
            side = max(1, round(2 * image_size * place.side))
            stamp = glyph.resize((side, side), Image.Resampling.LANCZOS)
            stamp = stamp.rotate(place.angle, Image.Resampling.BICUBIC, expand=True)
            left = round(2 * image_size * place.x - stamp.width / 2)
            top = round(2 * image_size * place.y - stamp.height / 2)
            canvas.paste(stamp, (left, top), mask=stamp)
    return canvas.reduce(2)


def with_article(words: str) -> str:
    """Put "a" or "an" before words, by their first letter."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def near_misses(captions: Sequence[str]) -> dict[str, dict[int, str]]:
    """Captions that are wrong in one thing, to see what an image-text score sees.

    Args:
        captions: of scenes, as `Scene.caption` gives them.

    Returns:
        By what is wrong: `ground` (that of the next caption), `figures` (those of the next one) and
        `relation` (turned round); for each the wrong captions by the number of the right one, where
        there is such a one.
    """
    parts = [caption.rsplit(" on ", maxsplit=1) for caption in captions]
    following = [*parts[1:], *parts[:1]]
    wrong: dict[str, dict[int, str]] = {"ground": {}, "figures": {}, "relation": {}}
    for number, ((figures, ground), (others, elsewhere)) in enumerate(
        zip(parts, following, strict=True)
    ):
        if elsewhere != ground:
            wrong["ground"][number] = f"{figures} on {elsewhere}"
        if others != figures:
            wrong["figures"][number] = f"{others} on {ground}"
        for relation, opposite in _OPPOSITES.items():
            if f" {relation} " in figures:
                turned = figures.replace(f" {relation} ", f" {opposite} ")
                wrong["relation"][number] = f"{turned} on {ground}"
    return wrong


def _halves(relation: str) -> tuple[tuple[float, float, float, float], ...]:
    """The boxes (left, top, right, bottom) of the first and the second figure."""
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    above, below = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0)
    return {
        "left of": (left, right),
        "right of": (right, left),
        "above": (above, below),
        "below": (below, above),
    }[relation]


def _figure(
    emoji: Emoji, count: int, box: tuple[float, float, float, float], random: np.random.Generator
) -> Figure:
    """Equal emoji in the cells of a box, each moved within its cell."""
    size = _choose(("", "", *_SIZES), random)
    turns = emoji.group != _SYMMETRIC_GROUP
    pose = _choose(("", "", *_POSES), random) if turns else ""
    left, top, right, bottom = box
    columns, rows = _cells(count, right - left, bottom - top, random)
    width, height = (right - left) / columns, (bottom - top) / rows
    placements = []
    for cell in range(count):
        cell_side = min(width, height)
        side = cell_side * random.uniform(*_SIZES[size])
        angle = random.uniform(*_POSES[pose]) * (random.choice((-1, 1)) if turns else 0)
        side = min(side, _MAX_EXTENT * cell_side / _growth(angle))
        extent = side * _growth(angle)
        x = left + (cell % columns + 0.5) * width
        y = top + (cell // columns + 0.5) * height
        x += random.uniform(-0.5, 0.5) * max(0.0, width - extent)
        y += random.uniform(-0.5, 0.5) * max(0.0, height - extent)
        placements.append(Placement(float(x), float(y), float(side), float(angle)))
    return Figure(emoji=emoji, size=size, pose=pose, placements=tuple(placements))


def _cells(count: int, width: float, height: float, random: np.random.Generator) -> tuple[int, int]:
    """Columns and rows of the cells: along the longer side, by chance in a square."""
    if width == height and count > 2:
        return 2, 2
    wide = width > height or (width == height and random.random() < 0.5)
    return (count, 1) if wide else (1, count)


def _growth(angle: float) -> float:
    """How much wider a square is, once turned by some degrees."""
    radians = np.deg2rad(angle)
    return float(abs(np.cos(radians)) + abs(np.sin(radians)))


def _choose(options: Sequence[Option], random: np.random.Generator) -> Option:
    return options[int(random.integers(len(options)))]
