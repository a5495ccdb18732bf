from __future__ import annotations

import gc
import io
import os
import signal
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import nn

import vizcnn

DATA = os.environ.get("VIZCNN_DATA", "")
MOST_PROCESSES = 8  # each holds torch and its networks: about 1 GB

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run side by side: threads of one would only wait for those of others
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start


def pytest_xdist_auto_num_workers() -> int:
    """A process for each core that this one may use; by itself pytest-xdist counts those of the whole machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect the tests without looking for garbage: of what imports and parametrised tests make, all stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()  # and is not looked through again and again while the tests run


settings.register_profile("patient", deadline=None)  # how long an example takes says nothing of what it is right about
settings.load_profile("patient")


@pytest.fixture
def data() -> Path:
    """The folder of real weights and photographs, which is never part of the project."""
    if not os.path.isdir(DATA):
        pytest.skip("VIZCNN_DATA does not name a folder of real weights and photographs")
    return Path(DATA)


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
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no names of hosts."""
    from huggingface_hub import constants

    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror("no names here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub"


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium of the machine, one for each module of tests: it takes longer to start than to look at a page."""
    from support_site import open_browser

    with open_browser() as started:
        yield started


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two classes of ten training and two validation images, laid out like Tiny ImageNet."""
    random = np.random.default_rng(0)

    def add(name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    def picture(mode: str) -> bytes:
        buffer = io.BytesIO()
        shape = (64, 64, 3) if mode == "RGB" else (64, 64)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "JPEG")
        return buffer.getvalue()

    with tarfile.open(tmp_path / "small.tar.xz", "w:xz") as tar:
        for wnid in ("n1", "n2"):
            for i in range(10):
                add(f"train/{wnid}/images/{wnid}_{i}.JPEG", picture("L" if i == 0 else "RGB"))
        for i in range(4):
            add(f"val/images/val_{i}.JPEG", picture("RGB"))
        rows = [f"val_{i}.JPEG\tn{1 + i % 2}\t0\t0\t9\t9" for i in range(4)]
        add("val/val_annotations.txt", "\n".join(rows).encode())
        add("wnids.txt", b"n2\nn1")
        add("words.txt", b"n1\ttabby, tabby cat\nn2\tlemon\n")
    return tmp_path / "small.tar.xz"
