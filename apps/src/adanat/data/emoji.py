"""The emoji of `emoji-scenes`: their groups and names, and the font that draws them."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adanat.errors import DataError

_GLYPH_SIZE = 109
"""The only size that the font has: its glyphs are bitmaps."""
FONT_NAME = "NotoColorEmoji.ttf"
_FONT_FOLDERS = (
    Path("/usr/share/fonts/truetype/noto"),  # Debian, Ubuntu
    Path("/usr/share/fonts/noto"),  # Arch
    Path("/usr/share/fonts/google-noto-color-emoji-fonts"),  # Fedora
    Path("/usr/share/fonts/noto-emoji"),  # Alpine
)
_FONT_HELP = (
    "Install it (`apt install fonts-noto-color-emoji`), or give --data-dir a folder with "
    f"{FONT_NAME} from https://github.com/googlefonts/noto-emoji."
)


class Emoji(NamedTuple):
    """One character that a picture can hold."""

    character: str
    name: str
    """A short noun, such as "red apple"."""
    plural: str
    group: str


@cache
def emoji_groups() -> dict[str, tuple[Emoji, ...]]:
    """The emoji by group; the groups' order is that of the class labels."""
    content = json.loads(files("adanat.data").joinpath("emoji.json").read_text(encoding="utf-8"))
    return {
        group: tuple(Emoji(**entry, group=group) for entry in entries)
        for group, entries in content.items()
    }


def find_font() -> Path:
    """Noto Color Emoji where distributions put it. Raises DataError where it is not installed."""
    for folder in _FONT_FOLDERS:
        if (folder / FONT_NAME).is_file():
            return folder / FONT_NAME
    places = ", ".join(str(folder) for folder in _FONT_FOLDERS)
    raise DataError(f"{FONT_NAME} is in none of {places}. {_FONT_HELP}")


class EmojiFont:
    """Draws emoji as square RGBA pictures.

    Args:
        path: a colour font with bitmaps of 109 pixels; default: see `find_font`.

    Raises:
        DataError: the file is missing or no such font.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or find_font()
        if not self.path.is_file():  # or Pillow would look for one of its name elsewhere
            raise DataError(f"there is no font {self.path}. {_FONT_HELP}")
        try:
            self._font = ImageFont.truetype(str(self.path), _GLYPH_SIZE)
        except OSError as error:
            raise DataError(f"cannot read the font {self.path}: {error}. {_FONT_HELP}") from error
        self._drawn: dict[str, Image.Image] = {}

    def draw(self, emoji: Emoji) -> Image.Image:
        """The emoji without margins, centred on a transparent square.

        Raises:
            DataError: the font does not have it in colour.
        """
        if emoji.character not in self._drawn:
            self._drawn[emoji.character] = self._draw(emoji)
        return self._drawn[emoji.character]

    def _draw(self, emoji: Emoji) -> Image.Image:
        sheet = Image.new("RGBA", (2 * _GLYPH_SIZE, 2 * _GLYPH_SIZE))
        ImageDraw.Draw(sheet).text((0, 0), emoji.character, font=self._font, embedded_color=True)
        box = sheet.getbbox()
        if box is None or not _is_coloured(sheet):
            raise DataError(f"{self.path} has no colour picture of {emoji.name}. {_FONT_HELP}")
        glyph = sheet.crop(box)
        side = max(glyph.size)
        square = Image.new("RGBA", (side, side))
        square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
        return square


def _is_coloured(picture: Image.Image) -> bool:
    """Whether a picture is more than one colour: fonts without colours draw in plain white."""
    pixels = np.asarray(picture)
    return bool((pixels[pixels[..., 3] > 0][:, :3] != 255).any())
