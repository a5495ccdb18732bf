"""The pixels of a Pillow image or an array: float32 (H, W, C) in [0, 1], RGB or grey, upright and opaque."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from vizcnn.errors import ImageError

Pixels = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

LARGEST = 89_478_485
"""Most pixels accepted in a file: Pillow's own bound against decompression bombs. At the most they take 16 bytes each
while they are read: 4 as Pillow holds them, 12 as floats."""

_AT_A_TIME = 1 << 18
"""Pixels converted in one go. A large image is then held twice, as Pillow holds it and as floats, and no third time."""

_DEEP = re.compile(r"\b(L|LA|RGB|RGBA|RGBX|RGBa);16[BLN]")  # layouts of 16 bits per channel, of which Pillow keeps 8

_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""By EXIF orientation: a view of upright pixels in which they lie as in the file. From 5 on, its rows are columns."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # and what they may say


def decode(image: Image.Image, ground: Colour, most: float) -> tuple[Pixels, str]:
    """The pixels of an image, and what a person should be warned of, or "".

    ground: the colour, RGB in [0, 1], that shows through transparent parts. most: pixels that are accepted.
    """
    _refuse_size(image, most)
    layout = str(getattr(image, "tile", ""))  # names that of the samples in the file, as `RGB;16B`, until it is loaded
    image.load()
    signed_bytes = image.mode == "L" and _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED
    if image.mode[0] in "FI" or signed_bytes:
        return _decode_deep(image, ground)
    return _decode_bytes(image, layout, ground)


def decode_array(array: npt.NDArray[Any], ground: Colour) -> tuple[Pixels, str]:
    """The same for an array (H, W) or (H, W, 1 | 3 | 4) of uint8, uint16 or floats in [0, 1]."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or array.size == 0:
        raise ImageError(
            f"an image array is (H, W) or (H, W, 1 | 3 | 4), got {array.shape}. A batch is a list of images"
        )
    stored = array if array.ndim == 3 else array[:, :, None]  # (H, W, C)
    top = _white_of_array(stored)
    warning = _warning_of_dark(int(stored[:, :, :3].max()), top) if top > 255 else ""
    if stored.shape[2] < 4:
        return np.divide(stored, top, dtype=np.float32, order="C"), warning

    def blend(rows: slice, out: Pixels) -> None:
        values = np.divide(stored[rows], top, dtype=np.float32)  # (h, W, 4)
        alpha = values[:, :, 3:]
        out[:] = values[:, :, :3] * alpha + np.array(ground, np.float32) * (1 - alpha)

    pixels = np.empty((*stored.shape[:2], 3), np.float32)
    _fill(pixels, blend)
    return pixels, warning


def _refuse_size(image: Image.Image, most: float) -> None:
    width, height = image.size
    if not width * height:
        raise ImageError(f"the image has {width} x {height} px. It needs at least one")
    if width * height > most:
        raise ImageError(f"the image has {width} x {height} px, more than {most:,}. Make it smaller first")


def _decode_bytes(image: Image.Image, layout: str, ground: Colour) -> tuple[Pixels, str]:
    """Of an image that Pillow holds in bytes, of however many bits it is in the file."""
    opaque, spread, deep = not image.has_transparency_data, _spread(image, layout), bool(_DEEP.search(layout))
    mode = "L" if opaque and image.mode in ("1", "L") else "RGB"

    def convert(rows: slice, out: Pixels) -> None:
        part = _cut(image, rows)
        shown = part if opaque else _on_ground(part, spread, deep, ground)
        values = np.asarray(shown if shown.mode == mode else shown.convert(mode))  # (h, W) or (h, W, 3)
        np.divide(values.reshape(out.shape), 255, out=out, dtype=np.float32)

    pixels = _upright(image, len(mode), convert)
    colours = {"LA": 1, "RGB": 3, "RGBA": 3}.get(image.mode, 0)
    if not (deep and colours):
        return pixels, ""
    highest = max(image.getchannel(i).getextrema()[1] for i in range(colours))
    return pixels, _warning_of_dark(int(highest) << 8 | 255, 65535)  # type: ignore[arg-type]


def _spread(image: Image.Image, layout: str) -> int:
    """By what Pillow has multiplied grey of 2 or 4 bits, for 0..255, but not the one that is transparent.

    An image that was loaded before tells that by its values only: they are all multiples."""
    for few, factor in (("L;2", 85), ("L;4", 17)):
        if few in layout:
            return factor
    key = image.info.get("transparency")
    if image.mode != "L" or not isinstance(key, int) or layout not in ("", "[]", "()"):
        return 1
    values = [value for value, count in enumerate(image.histogram()) if count]
    fitting = (factor for factor in (85, 17) if key * factor <= 255 and all(v % factor == 0 for v in values))
    return next(fitting, 1)


def _on_ground(image: Image.Image, spread: int, deep: bool, ground: Colour) -> Image.Image:
    """A transparent image in front of a colour. spread: of its key. deep: whether the file has 16 bits per channel."""
    key = image.info.get("transparency")
    image = image.copy()  # whose key is changed below
    if isinstance(key, int) and image.mode in ("1", "L"):
        image.info["transparency"] = key * spread if image.mode == "L" else 255 * bool(key)
    coarse = False
    if isinstance(key, tuple) and (deep or max(key) > 255):
        image.info["transparency"], coarse = tuple(value >> 8 for value in key), True
    full = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if coarse and full.getchannel("A").getextrema()[0] == 0:
        raise ImageError(
            "of its 16 bits per channel Pillow reads 8, too few to tell which pixels have the transparent colour. "
            "Save it with an alpha channel"
        )
    below = Image.new("RGBA", image.size, tuple(round(255 * value) for value in ground))
    return Image.alpha_composite(below, full)


def _decode_deep(image: Image.Image, ground: Colour) -> tuple[Pixels, str]:
    """Of greyscale that `convert("RGB")` would clip or wrap around: more than 8 bits, floats, signed numbers."""
    top = _white_of(image)
    negative = _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO
    low, high = _extremes(image)
    if not (low >= 0 and high <= top):  # NaN is neither
        raise ImageError(
            f"an {image.mode}-mode image must hold values in 0..{top:g}, got {low:g}..{high:g}. "
            f"Pass it as an array. {_remedy(low, high)}"
        )
    key = image.info.get("transparency")

    def convert(rows: slice, out: Pixels) -> None:
        values = _samples(image, rows)[:, :, None]  # (h, W, 1)
        out[:] = np.divide(top - values if negative else values, top, dtype=np.float32)
        if key is not None:
            np.copyto(out, np.array(ground, np.float32), where=values == key)

    warning = _warning_of_dark(int(top - low if negative else high), top) if top > 255 else ""
    return _upright(image, 1 if key is None else 3, convert), warning


def _white_of(image: Image.Image) -> int:
    """The value of white: 1 for floats, the largest of that many bits in a TIFF, 65535 elsewhere."""
    bits = _tag(image, _BITS, 16)
    signed = _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED
    return 1 if image.mode == "F" else 2 ** (bits - signed) - 1 if bits <= 16 else 65535


def _white_of_array(array: npt.NDArray[Any]) -> int:
    if array.dtype.kind == "u" and array.itemsize <= 2:
        return int(np.iinfo(array.dtype).max)
    if array.dtype.kind != "f":
        raise ImageError(f"an image array is uint8, uint16 or floats in [0, 1], got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ImageError(f"floats of an image lie in [0, 1], got {low:g}..{high:g}. {_remedy(low, high)}")
    return 1


def _remedy(low: float, high: float) -> str:
    if not np.isfinite([low, high]).all():
        return "Replace NaN and infinity by numbers first"
    if low < 0 or high <= 2:
        return "Undo its normalisation, or scale it so that 0 is black and 1 is white"
    return "Divide by 255" if high <= 255 else "Divide by the value of white, such as 4095 or 65535"


def _warning_of_dark(largest: int, top: int) -> str:
    """Of numbers of 8 to 14 bits in samples of 16, which look like a dark image: nothing else tells them apart."""
    if not 0 < largest <= top // 4:
        return ""
    white = 2 ** largest.bit_length() - 1
    return (
        f"no sample of the image is above {white}, of {top} possible, so that it looks dark. If {white} stands for "
        f"white, pass it as an array of floats, divided by {white}"
    )


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """What a TIFF says of itself; the default for images of other kinds."""
    found = getattr(image, "tag_v2", {}).get(tag, default)
    return int(found[0] if isinstance(found, tuple) else found)


def _upright(image: Image.Image, channels: int, convert: Callable[[slice, Pixels], None]) -> Pixels:
    """All rows of an image, converted and turned as its EXIF says, which nothing has to be copied for."""
    orientation = _orientation(image)
    size = image.size if orientation >= 5 else image.size[::-1]
    pixels = np.empty((*size, channels), np.float32)  # (H, W, C)
    _fill(_STORED[orientation](pixels) if orientation in _STORED else pixels, convert)
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever is wrong with the metadata, the picture is sound
        return 1
    return found if isinstance(found, int) and found in _STORED else 1


def _fill(pixels: Pixels, convert: Callable[[slice, Pixels], None]) -> None:
    """convert: writes the pixels of these rows."""
    for rows in _rows(*pixels.shape[:2]):
        convert(rows, pixels[rows])


def _rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, _AT_A_TIME // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def _cut(image: Image.Image, rows: slice) -> Image.Image:
    whole = rows.stop - rows.start == image.height
    return image if whole else image.crop((0, rows.start, image.width, rows.stop))


def _samples(image: Image.Image, rows: slice) -> npt.NDArray[Any]:
    values = np.asarray(_cut(image, rows))  # (h, W)
    return values.view(np.int8) if image.mode == "L" else values  # Pillow takes signed bytes for unsigned ones


def _extremes(image: Image.Image) -> tuple[float, float]:
    """The least and the largest sample; NaN where there is one."""
    parts = (_samples(image, rows) for rows in _rows(image.height, image.width))
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    return float(np.min(lows)), float(np.max(highs))
