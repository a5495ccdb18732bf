"""Pixels: those of a Pillow image or an array as (H, W, C), RGB or grey, upright and opaque; bytes or floats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from vizcnn.errors import ImageError

Held = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
"""Float32 in [0, 1]; or uint8, for images whose samples are bytes."""
Colour = tuple[float, float, float]

LARGEST = 89_478_485
"""The most pixels that a file may have: Pillow's own bound against decompression bombs. While it is read, a pixel of 8
bits per channel takes 7 bytes, 4 as Pillow holds it and 3 as they are kept; one of more bits at most 16."""

_AT_A_TIME = 1 << 18
"""Pixels converted in one go. A large image is then held twice, as Pillow does and as it is kept, and no third time."""

_DEEP = re.compile(r"\b(L|LA|RGB|RGBA|RGBX|RGBa);16[BLN]")  # samples of 16 bits per channel, of which Pillow keeps 8

_STORED: dict[int, Callable[[Held], Held]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""By EXIF orientation: from upright pixels to a view in which they lie as in the file. From 5 on, rows are columns."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # and what they may say


def decode(image: Image.Image, background: Colour, most: float) -> tuple[Held, str]:
    """The pixels of a Pillow image, and a warning for the person, or "".

    background: the colour, RGB in [0, 1], that shows through transparent parts. most: pixels that are accepted.
    """
    _refuse_size(image, most)
    tile = str(getattr(image, "tile", ""))  # names the format of the samples in the file, as `RGB;16B`, until loaded
    image.load()
    signed_bytes = image.mode == "L" and _read_tag(image, _SAMPLE_FORMAT, 1) == _SIGNED
    if image.mode[0] in "FI" or signed_bytes:
        return _decode_deep(image, background)
    return _decode_bytes(image, tile, background)


def decode_array(array: npt.NDArray[Any], background: Colour) -> tuple[Held, str]:
    """The pixels of an array (H, W) or (H, W, 1 | 3 | 4) of uint8, uint16 or floats in [0, 1], and a warning, or ""."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        raise ImageError(
            f"an image array is (H, W) or (H, W, 1 | 3 | 4), got {array.shape}. A batch is a list of images"
        )
    stored = array if array.ndim == 3 else array[:, :, None]  # (H, W, C)
    top = _find_white_of_array(stored)
    warning = _word_dark_warning(int(stored[:, :, :3].max()), top) if top > 255 else ""
    if stored.shape[2] < 4:
        if stored.dtype == np.uint8:
            return np.array(stored, order="C"), warning  # a copy: the person may write the next image into the array
        return np.divide(stored, top, dtype=np.float32, order="C"), warning

    def blend(rows: slice, out: Held) -> None:
        values = np.divide(stored[rows], top, dtype=np.float32)  # (h, W, 4)
        alpha = values[:, :, 3:]
        out[:] = values[:, :, :3] * alpha + np.array(background, np.float32) * (1 - alpha)

    pixels = np.empty((*stored.shape[:2], 3), np.float32)
    _fill(pixels, blend)
    return pixels, warning


def _refuse_size(image: Image.Image, most: float) -> None:
    width, height = image.size
    if not width * height:
        raise ImageError(f"the image has {width} x {height} px. It needs at least one")
    if width * height > most:
        raise ImageError(f"the image has {width} x {height} px, more than {most:,}. Make it smaller first")


def _decode_bytes(image: Image.Image, tile: str, background: Colour) -> tuple[Held, str]:
    """The pixels of an image that Pillow holds in 8 bits per channel, however many the file has."""
    opaque, factor, deep = not image.has_transparency_data, _find_grey_factor(image, tile), bool(_DEEP.search(tile))
    mode = "L" if opaque and image.mode in ("1", "L") else "RGB"

    def convert(rows: slice, out: Held) -> None:
        part = _cut(image, rows)
        shown = part if opaque else _blend(part, factor, deep, background)
        values = np.asarray(shown if shown.mode == mode else shown.convert(mode))  # (h, W) or (h, W, 3)
        out[:] = values.reshape(out.shape)

    pixels = _convert_upright(image, len(mode), np.uint8, convert)
    colours = {"LA": 1, "RGB": 3, "RGBA": 3}.get(image.mode, 0)
    if not (deep and colours):
        return pixels, ""
    highest = max(image.getchannel(i).getextrema()[1] for i in range(colours))
    return pixels, _word_dark_warning(int(highest) << 8 | 255, 65535)  # type: ignore[arg-type]


def _find_grey_factor(image: Image.Image, tile: str) -> int:
    """The factor by which Pillow has multiplied grey values of 2 or 4 bits to fill 0..255; 1 for other images.

    Pillow leaves the value that marks transparent pixels as it was. Of an image that was loaded before, the tile is
    gone; its values then tell, being all multiples of the factor."""
    for few, factor in (("L;2", 85), ("L;4", 17)):
        if few in tile:
            return factor
    key = image.info.get("transparency")
    if image.mode != "L" or not isinstance(key, int) or tile not in ("", "[]", "()"):
        return 1
    values = [value for value, count in enumerate(image.histogram()) if count]
    fitting = (factor for factor in (85, 17) if key * factor <= 255 and all(v % factor == 0 for v in values))
    return next(fitting, 1)


def _blend(image: Image.Image, factor: int, deep: bool, background: Colour) -> Image.Image:
    """A transparent image in front of a background colour.

    factor: for the value that marks transparent pixels, from `_find_grey_factor`. deep: whether the file has 16 bits
        per channel."""
    key = image.info.get("transparency")
    image = image.copy()  # whose key is changed below
    if isinstance(key, int) and image.mode in ("1", "L"):
        image.info["transparency"] = key * factor if image.mode == "L" else 255 * bool(key)
    coarse = False
    if isinstance(key, tuple) and (deep or max(key) > 255):
        image.info["transparency"], coarse = tuple(value >> 8 for value in key), True
    full = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if coarse and full.getchannel("A").getextrema()[0] == 0:
        raise ImageError(
            "of its 16 bits per channel Pillow reads 8, too few to tell which pixels have the transparent colour. "
            "Save it with an alpha channel"
        )
    below = Image.new("RGBA", image.size, tuple(round(255 * value) for value in background))
    return Image.alpha_composite(below, full)


def _decode_deep(image: Image.Image, background: Colour) -> tuple[Held, str]:
    """The pixels of greyscale that `convert("RGB")` would clip or wrap around: over 8 bits, floats, signed values."""
    top = _find_white(image)
    negative = _read_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    low, high = _find_extremes(image)
    if not (low >= 0 and high <= top):  # NaN is neither
        raise ImageError(
            f"an {image.mode}-mode image must hold values in 0..{top:g}, got {low:g}..{high:g}. "
            f"Pass it as an array. {_suggest_remedy(low, high)}"
        )
    key = image.info.get("transparency")

    def convert(rows: slice, out: Held) -> None:
        values = _read_samples(image, rows)[:, :, None]  # (h, W, 1)
        out[:] = np.divide(top - values if negative else values, top, dtype=np.float32)
        if key is not None:
            np.copyto(out, np.array(background, np.float32), where=values == key)

    warning = _word_dark_warning(int(top - low if negative else high), top) if top > 255 else ""
    return _convert_upright(image, 1 if key is None else 3, np.float32, convert), warning


def _find_white(image: Image.Image) -> int:
    """The value of white: 1 for floats, the largest of that many bits in a TIFF, 65535 elsewhere."""
    bits = _read_tag(image, _BITS, 16)
    signed = _read_tag(image, _SAMPLE_FORMAT, 1) == _SIGNED
    return 1 if image.mode == "F" else 2 ** (bits - signed) - 1 if bits <= 16 else 65535


def _find_white_of_array(array: npt.NDArray[Any]) -> int:
    if array.dtype.kind == "u" and array.itemsize <= 2:
        return int(np.iinfo(array.dtype).max)
    if array.dtype.kind != "f":
        raise ImageError(f"an image array is uint8, uint16 or floats in [0, 1], got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ImageError(f"floats of an image lie in [0, 1], got {low:g}..{high:g}. {_suggest_remedy(low, high)}")
    return 1


def _suggest_remedy(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return "Replace NaN and infinity by numbers first"
    if low < 0 or high <= 2:
        return "Undo its normalisation, or scale it so that 0 is black and 1 is white"
    return "Divide by 255" if high <= 255 else "Divide by the value of white, such as 4095 or 65535"


def _word_dark_warning(largest: int, top: int) -> str:
    """A warning where 16-bit samples hold only small values, or "".

    Values of 8 to 14 bits stored in 16 look like a dark image, and nothing in the file tells the two apart."""
    if not 0 < largest <= top // 4:
        return ""
    white = 2 ** largest.bit_length() - 1
    return (
        f"no sample of the image is above {white}, of {top} possible, so that it looks dark. If {white} stands for "
        f"white, pass it as an array of floats, divided by {white}"
    )


def _read_tag(image: Image.Image, tag: int, default: int) -> int:
    """The value of a TIFF's tag; the default for images of other formats."""
    found = getattr(image, "tag_v2", {}).get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)


def _convert_upright(
    image: Image.Image,
    channels: int,
    dtype: type[np.uint8] | type[np.float32],
    convert: Callable[[slice, Held], None],
) -> Held:
    """The pixels of an image, converted and turned upright as its EXIF says, written in place without a copy."""
    orientation = _read_orientation(image)
    size = image.size if orientation >= 5 else image.size[::-1]
    pixels: npt.NDArray[Any] = np.empty((*size, channels), dtype)  # (H, W, C)
    _fill(_STORED[orientation](pixels) if orientation in _STORED else pixels, convert)
    return pixels


def _read_orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever is wrong with the metadata, the picture is sound
        return 1
    return found if isinstance(found, int) and found in _STORED else 1


def _fill(pixels: Held, convert: Callable[[slice, Held], None]) -> None:
    """Write all pixels, some rows at a time. convert: writes those of the rows that it is given."""
    for rows in _split_rows(*pixels.shape[:2]):
        convert(rows, pixels[rows])


def _split_rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, _AT_A_TIME // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _cut(image: Image.Image, rows: slice) -> Image.Image:
    whole = rows.stop - rows.start == image.height
    return image if whole else image.crop((0, rows.start, image.width, rows.stop))


def _read_samples(image: Image.Image, rows: slice) -> npt.NDArray[Any]:
    values = np.asarray(_cut(image, rows))  # (h, W)
    return values.view(np.int8) if image.mode == "L" else values  # Pillow takes signed bytes for unsigned ones


def _find_extremes(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest sample; NaN if there is one."""
    parts = (_read_samples(image, rows) for rows in _split_rows(image.height, image.width))
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    return float(np.min(lows)), float(np.max(highs))
