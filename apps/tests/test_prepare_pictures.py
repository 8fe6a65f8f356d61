"""Foreign picture files as RGB, and ADM's square against an independent computation."""

import io

import numpy as np
import pytest
from adanat.prepare.pictures import adm_crop, encode_png, open_rgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image


def _noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _file(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2 (Keys 1981, eq. 4)."""
    x, a = np.abs(x), -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _resize_axis(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Cubic resampling of axis 0: the kernel is widened when shrinking, cut off at the border."""
    old = len(values)
    scale = old / size
    centres = (np.arange(size) + 0.5) * scale
    distance = (np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = _cubic(distance)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.einsum("so,o...->s...", weights, values)
    return np.rint(rows).clip(0, 255)


def _reference(pixels: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    values = pixels.astype(np.float64)
    while min(values.shape[:2]) >= 2 * size:  # even sizes only, where halving is a plain mean
        height, width = values.shape[:2]
        assert height % 2 == 0
        assert width % 2 == 0
        # Pillow resizes across first and rounds half up in between.
        values = np.floor((values[:, 0::2] + values[:, 1::2]) / 2 + 0.5)
        values = np.floor((values[0::2] + values[1::2]) / 2 + 0.5)
    height, width = values.shape[:2]
    scale = size / min(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    if (new_height, new_width) != (height, width):
        values = _resize_axis(values.swapaxes(0, 1), new_width).swapaxes(0, 1)
        values = _resize_axis(values, new_height)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return values[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(48, 64, 32), (64, 48, 32), (128, 160, 32), (40, 200, 32), (20, 26, 32), (96, 96, 24)],
)
def test_adm_crop_equals_an_independent_computation(height: int, width: int, size: int) -> None:
    pixels = _noise(height, width)
    found = adm_crop(Image.fromarray(pixels), size).astype(np.float64)
    # Pillow's fixed-point weights may round a value the other way.
    assert np.abs(found - _reference(pixels, size)).max() <= 1


@given(st.integers(8, 90), st.integers(8, 90), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_adm_crop_always_gives_the_square(height: int, width: int, size: int) -> None:
    found = adm_crop(Image.fromarray(_noise(height, width)), size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8


def test_a_square_of_the_right_size_stays_as_it_is() -> None:
    pixels = _noise(32, 32)
    np.testing.assert_array_equal(adm_crop(Image.fromarray(pixels), 32), pixels)


def test_cropping_ahead_and_storing_png_changes_no_pixel() -> None:
    image = Image.fromarray(_noise(70, 91))
    stored = open_rgb(encode_png(adm_crop(image, 24)))
    np.testing.assert_array_equal(adm_crop(stored, 24), adm_crop(image, 24))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = np.asarray(open_rgb(_file(Image.fromarray(values))))
    np.testing.assert_array_equal(found[..., 0], values >> 8)


def test_grey_is_repeated() -> None:
    grey = _noise(16, 16)[..., 0]
    found = np.asarray(open_rgb(_file(Image.fromarray(grey))))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_cmyk_jpeg_keeps_its_colour() -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 30))
    found = np.asarray(open_rgb(_file(red.convert("CMYK"), "JPEG"))).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(found, (200, 30, 30), atol=6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(_noise(16, 16)).convert(mode)
    found = open_rgb(_file(image))
    assert (found.mode, found.size) == ("RGB", (16, 16))


def test_what_a_transparent_palette_shows_is_kept() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 200, 90])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=bytes([0, 255]))
    assert open_rgb(buffer.getvalue()).getpixel((3, 3)) == (10, 200, 90)
