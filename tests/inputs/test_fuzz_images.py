"""Damaged files: whatever happens to one, the result is an image or one line that says what is wrong, and soon."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from vizcnn.errors import ImageError, VizcnnWarning
from vizcnn.inputs import images
from vizcnn.inputs.datasets import dataset
from vizcnn.inputs.images import FORMATS, read_photo

BY_HAND = {"PSD", "QOI", "SUN"}  # formats that some Pillow reads and does not write

T = TypeVar("T")


def grey_levels(channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (12, 16, channels), np.uint8)
    return Image.fromarray(values if channels > 1 else values[:, :, 0])


def by_hand(kind: str) -> bytes:
    """A file of a format that Pillow reads, but may not write."""
    pixels = np.asarray(grey_levels())
    if kind == "PSD":
        header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 12, 16, 8, 3)
        return header + bytes(12) + bytes(2) + pixels.transpose(2, 0, 1).tobytes()
    if kind == "SUN":
        return struct.pack(">8I", 0x59A66A95, 16, 12, 24, pixels.nbytes, 1, 0, 0) + pixels[:, :, ::-1].tobytes()
    return struct.pack(">4sIIBB", b"qoif", 16, 12, 3, 0) + b"".join(b"\xfe" + bytes(p) for p in pixels.reshape(-1, 3))


def file_of(kind: str) -> bytes:
    if kind in BY_HAND:
        return by_hand(kind)
    if kind == "HEIF":
        data = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(grey_levels()).save(data)
        return data.getvalue()
    more: dict[str, Any] = {}
    if kind in ("GIF", "MPO", "TIFF", "WEBP"):
        more = {"save_all": True, "append_images": [grey_levels()]}
    exif = Image.Exif()
    exif[0x0112] = 6
    more |= {"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    more |= {"sizes": [(16, 12)]} if kind == "ICO" else {}  # older Pillows write none that is not of a usual size
    data = io.BytesIO()
    grey_levels().save(data, kind, **more)
    return data.getvalue()


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a piece cut out, doubled or emptied, or the end missing; mostly near the start."""
    out = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(len(out) * random.random() ** 3)
        end = at + int(random.integers(1, 16))
        how = random.integers(0, 8)
        if how == 0:
            del out[at:]
        elif how == 1:
            del out[at:end]
        elif how == 2:
            out[at:at] = out[at:end]
        elif how == 3:
            out[at:end] = bytes(len(out[at:end]))
        elif at < len(out):
            out[at] = random.choice([0, 1, 127, 128, 255, out[at] ^ 1 << int(random.integers(8))])
    return bytes(out)


def tried(read: Callable[[], T]) -> T | None:
    """What is read, or None for an error that says so in one line; within seconds."""
    started, answer, error = time.monotonic(), None, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VizcnnWarning)
        try:
            answer = read()
        except ImageError as caught:
            error = str(caught)
    assert not error or error.isprintable()
    assert time.monotonic() - started < 5
    return answer


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_damaged_image_is_an_image_or_an_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    if kind not in Image.SAVE and kind not in {*BY_HAND, "HEIF"}:
        pytest.skip(f"this Pillow has no {kind}")
    monkeypatch.setattr(images, "LARGEST", 1 << 20)  # larger ones are refused as those above the true limit are
    whole, random = file_of(kind), np.random.default_rng(1)
    assert read_photo(io.BytesIO(whole), Path("x")).pixels.size == 16 * 12 * 3
    answers = [tried(lambda: read_photo(io.BytesIO(damaged(whole, random)), Path("x"))) for _ in range(200)]
    assert all(0 <= photo.pixels.min() <= photo.pixels.max() <= 1 for photo in answers if photo)
    assert not all(answers)


def archive_of(ending: str) -> bytes:
    image, data = file_of("PNG"), io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
            for i in range(3):
                packed.writestr(f"c{i}/{i}.png", image)
        return data.getvalue()
    with tarfile.open(fileobj=data, mode="w") as plain:
        for i in range(3):
            entry = tarfile.TarInfo(f"c{i}/{i}.png" if i else f"{120 * 'c'}/0.png")
            entry.size = len(image)
            plain.addfile(entry, io.BytesIO(image))
        link = tarfile.TarInfo("d/3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../c1/1.png"
        plain.addfile(link)
    return data.getvalue() if ending == ".tar" else gzip.compress(data.getvalue(), mtime=0)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_a_damaged_archive_is_a_data_set_or_an_error(ending: str, tmp_path: Path) -> None:
    whole, random, place = archive_of(ending), np.random.default_rng(2), tmp_path / f"x{ending}"
    refused = 0
    for _ in range(150):
        place.write_bytes(damaged(whole, random))
        found = tried(lambda: dataset(place))
        refused += found is None
        for i in range(len(found or ())):
            tried(lambda: found.read(i))  # type: ignore[union-attr]  # noqa: B023
    assert 0 < refused < 150
