"""Photographs in another size: the values of torch from all pixels at once, without all pixels at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vizcnn
from vizcnn.errors import ImageError
from vizcnn.inputs import photo as photo_module
from vizcnn.inputs.photo import Photo, to_floats, to_grey
from vizcnn.inputs.resampling import resample
from vizcnn.models.contract import InputContract
from vizcnn.results.photos import reduce_photo

SIZES = [  # of a photograph, and of what becomes of it
    ((61, 47), (16, 16)),
    ((61, 47), (9, 80)),
    ((7, 300), (40, 11)),
    ((300, 7), (300, 3)),
    ((13, 1), (5, 9)),
    ((64, 48), (32, 24)),
    ((1, 1), (8, 8)),
]


@pytest.fixture(autouse=True)
def in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time, as of a large photograph."""
    monkeypatch.setattr(photo_module, "_AT_A_TIME", 200)


def draw(size: tuple[int, int], channels: int) -> Photo:
    return Photo(np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("held", "channels"), [(3, 3), (1, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_the_values_are_those_of_all_pixels_at_once(
    size: tuple[int, int],
    wanted: tuple[int, int],
    held: int,
    channels: Literal[1, 3],
    mode: Literal["bilinear", "bicubic"],
    antialias: bool,
) -> None:
    photo = draw(size, held)
    floats = photo.held.astype(np.float32) / np.float32(255)
    whole = to_grey(floats) if channels == 1 else np.repeat(floats, 3, 2) if held == 1 else floats
    pixels = torch.from_numpy(whole).permute(2, 0, 1)[None]
    right = F.interpolate(pixels, wanted, mode=mode, antialias=antialias).clamp(0, 1)
    made = resample(photo, wanted, channels=channels, mode=mode, antialias=antialias)
    assert torch.equal(made, right)
    assert torch.equal(resample(photo, size, channels=channels, mode=mode, antialias=antialias), pixels)


def test_an_input_is_what_torchvision_prepares() -> None:
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    photo = draw((311, 205), 3)
    prepare = transforms.Compose([transforms.Resize(48, antialias=True), transforms.CenterCrop(32)])
    right = prepare(torch.from_numpy(photo.pixels).permute(2, 0, 1))
    assert torch.equal(InputContract(size=(32, 32), resize=48).prepared(photo)[0], right)


def test_a_digest_is_of_the_values_however_they_are_held() -> None:
    photo = draw((61, 47), 3)
    assert photo.sha256() == Photo(photo.pixels).sha256() == vizcnn.open_photo(photo.held).sha256()
    changed = photo.held.copy()
    changed[60, 46, 2] ^= 1  # the last of the last band
    assert Photo(changed).sha256() != photo.sha256()
    assert Photo(photo.held.reshape(47, 61, 3)).sha256() != photo.sha256()


def test_a_person_may_write_the_next_image_into_the_same_array() -> None:
    frame = np.full((4, 4, 3), 9, np.uint8)
    photo = vizcnn.open_photo(frame)
    frame[:] = 200
    assert photo.held.max() == 9


def test_a_copy_for_drawing_is_no_input() -> None:
    kept = reduce_photo(Photo(np.zeros((30, 20, 3), np.uint8), "a.jpg"), 10)
    for read in (lambda: resample(kept, (5, 5), channels=3), lambda: vizcnn.open_photo(kept)):
        with pytest.raises(ImageError, match="of a.jpg the result has kept a copy to draw only. Open the image file"):
            read()
    with pytest.raises(ImageError, match="a.jpg the result has kept a copy to draw only"):
        resample(kept, (5, 5), channels=3, antialias=False)


def test_a_large_photograph_never_is_floats_as_a_whole(tmp_path: Path) -> None:
    """Beside what Pillow holds (4 bytes for each pixel) and the bytes that are kept (3): no 12 bytes of floats."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the most memory that a process had is known on Linux only")
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    Image.fromarray(np.kron(noise, np.ones((10, 10, 1), np.uint8))).save(tmp_path / "a.jpg")
    program = f"""
import re
import vizcnn
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
model = vizcnn.load("tiny")
vizcnn.Cam()(model, "sample:grace_hopper").figure().savefig({str(tmp_path / "small.png")!r})
before = peak()
result = vizcnn.Cam()(model, {str(tmp_path / "a.jpg")!r})
result.save({str(tmp_path / "b.npz")!r})
result.figure().savefig({str(tmp_path / "b.png")!r})
print((peak() - before) / (4000 * 6000))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[\d.]+\s*", done.stdout)
    assert float(done.stdout) < 10


def test_floats_are_255ths_of_bytes() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_floats(values).ravel(), np.arange(256, dtype=np.float32) / np.float32(255))
