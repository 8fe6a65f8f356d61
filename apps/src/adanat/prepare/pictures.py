"""Foreign picture files as RGB, and the square that ADM cuts out of them."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is opened at all; anything else (GIF, TIFF, PostScript, ...) is refused."""
SMALLEST_SIDE = 8
"""Fewer pixels a side are no picture but a tracking pixel or a placeholder."""


def open_rgb(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG or WebP file to mode RGB.

    Grey values are repeated, CMYK is converted, transparency is dropped, of 16 bits the upper 8
    are kept, palettes are resolved. Orientation tags are not applied (as ADM does not).

    Args:
        data: The whole file.

    Raises:
        ValueError: The bytes are no such file, are cut off, or hold fewer than ``SMALLEST_SIDE``
            pixels a side.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if min(image.size) < SMALLEST_SIDE:
                raise ValueError(
                    f"the image has {image.width}x{image.height} pixels, "
                    f"fewer than {SMALLEST_SIDE} a side"
                )
            image.load()
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise ValueError(f"the file is no {', '.join(FORMATS)} image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be decoded: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255 instead of scaling them
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # resolved through RGBA, or Pillow warns of transparency in bytes
        image = image.convert("RGBA")
    return image.convert("RGB")


def adm_crop(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The central square of an image at ``size`` pixels, as ADM prepares its training images.

    Halved with a box filter while the shorter side is at least twice ``size``, then resized with
    a bicubic filter so that the shorter side is ``size``, then cropped (guided-diffusion,
    ``image_datasets.py``). An image of ``size`` x ``size`` pixels comes back unchanged.

    Args:
        image: Mode RGB.
        size: Side of the result, at least 1.

    Returns:
        (size, size, 3) uint8.
    """
    while min(image.size) >= 2 * size:
        halves = (image.width // 2, image.height // 2)
        image = image.resize(halves, resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    scaled = (round(image.width * scale), round(image.height * scale))
    if scaled != image.size:
        image = image.resize(scaled, resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as a PNG file: lossless, equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
