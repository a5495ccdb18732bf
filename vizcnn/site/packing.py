"""Numbers, texts and pictures in the form in which a page reads them: short, and never markup or a path."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vizcnn.errors import escape_invisible
from vizcnn.site.records import Missing, Pixels

_QUALITY = 75  # of WebP: 2.0 kB for an optimised picture of 64 px, 1.3 kB for a photograph


def round_number(value: float, digits: int = 4) -> float | int | None:
    """A number of so few digits; None where it is not finite, which JSON cannot say."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def describe(value: float | Missing, digits: int = 4) -> Any:
    """The number, or why there is none."""
    return to_missing(value) if isinstance(value, Missing) else round_number(value, digits)


def to_missing(missing: Missing) -> dict[str, str]:
    return {"missing": clean(missing.reason)}


def clean(text: str) -> str:
    """A text for people: what has no sign, or turns the direction of what follows, is written out."""
    return escape_invisible(text)


def pack(values: npt.ArrayLike, kind: npt.DTypeLike) -> str:
    """Numbers of one kind in base64, little end first, row by row."""
    array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def pack_signed(values: npt.NDArray[Any]) -> tuple[str, float]:
    """Numbers as bytes from -127 to 127, and the size that 127 stands for."""
    end = float(np.abs(values).max(initial=0.0)) or 1.0
    return pack(np.round(values / end * 127), np.int8), end


def pack_halves(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Numbers in half precision where all fit into it, else in single."""
    fits = bool(np.abs(values).max(initial=0.0) < np.finfo(np.float16).max)
    return {"shape": values.shape, "half": fits, "values": pack(values, np.float16 if fits else np.float32)}


def to_script(key: str, value: Any) -> str:
    """The text of a data file: a script that hands over a value under its key.

    Nothing of it can end the script or begin a comment, also where the file is put into a page."""
    text = json.dumps([key, value], separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return "ATLAS.put(...{});\n".format(text.replace("<", "\\u003c"))


def encode_webp(pixels: Pixels) -> bytes:
    """A picture (h, w, 3), (h, w, 1) or (h, w) as WebP."""
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(flat).convert("RGB").save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()
