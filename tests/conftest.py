from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import nn

import vizcnn
from vizcnn.results import Provenance

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("VIZCNN_DATA", ROOT.parent / "shared" / "data"))


ORIGIN = Provenance(
    version=vizcnn.__version__,
    torch="2",
    probe="filters",
    options={},
    details={"layer": "conv"},
    model="net",
    weights_sha256="0" * 64,
    input={},
    device="cpu",
    images=(),
    targets=(),
    target_specs=(),
    seed=0,
    paper="nobody 2026",
)
"""Where a result made up for a test comes from."""

settings.register_profile("patient", deadline=None)  # how long an example takes says nothing of what it is right about
settings.load_profile("patient")


@pytest.fixture
def data() -> Path:
    """The folder of real weights and photographs, which is never part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"real weights and photographs are not at {DATA} (set VIZCNN_DATA)")
    return DATA


@pytest.fixture(scope="session")
def tiny() -> vizcnn.Model:
    return vizcnn.load("tiny")


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    """A 90 x 60 photograph-like PNG."""
    rows, columns = np.mgrid[0:60, 0:90]
    pixels = np.stack([rows * 4, columns * 2, 255 - rows * 2], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that would wait or go round for ever fails after ten seconds."""

    def stop(*_: object) -> None:
        pytest.fail("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Brightness(nn.Module):
    """Two classes, each 4 m - 2 where m is the mean of the image's upper left quarter, or of everything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, _, h, w = x.shape
        return 4 * torch.stack([x[:, :, : h // 2, : w // 2].mean((1, 2, 3)), x.mean((1, 2, 3))], 1) - 2  # (N, 2)


@pytest.fixture
def brightness() -> vizcnn.Model:
    return vizcnn.Model(Brightness(), size=8, labels=["corner", "all"], name="brightness")


def small_cnn(channels: int = 3, classes: int = 5) -> nn.Sequential:
    """A random convolutional network for inputs of any size; always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
