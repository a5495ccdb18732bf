"""Damaged and hostile checkpoints: each is read, or refused with one clear error, in bounded memory and time, and none
runs code. The changes are drawn from a seed, so that a failure can be repeated."""

from __future__ import annotations

import io
import resource
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from vizcnn.errors import WeightsError, to_one_line
from vizcnn.models.loading import read_weights

CHANGES = 200  # for each format
MEMORY, SECONDS = 600e6, 60  # bytes and seconds for all changes of a format; far more than they take

Random = np.random.Generator


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def pickled(content: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def state() -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.arange(54.0).reshape(2, 3, 3, 3),
        "conv.bias": torch.ones(2).half(),
        "n": torch.tensor(3),
    }


def flipped(data: bytes, random: Random) -> bytes:
    """Some bytes are others, most of them where the description of the tensors is."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 6)):
        changed[random.integers(len(data) if random.random() < 0.5 else min(len(data), 400))] = random.integers(256)
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data))]


def moved(data: bytes, random: Random) -> bytes:
    """A piece is missing, doubled, or elsewhere."""
    a, b, c = sorted(random.integers(len(data), size=3))
    return [data[:a] + data[b:], data[:b] + data[a:], data[:a] + data[b:c] + data[a:b] + data[c:]][random.integers(3)]


def larger(data: bytes, random: Random) -> bytes:
    """A number, in text or binary, is a huge one."""
    size = int(random.choice([2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1]))
    place = int(random.integers(len(data)))
    found = data.find(b"[", place)
    if found >= 0 and random.random() < 0.5:
        return data[: found + 1] + str(size).encode() + b"," + data[found + 1 :]
    return data[:place] + size.to_bytes(8, "little") + data[place + 8 :]


def repickled(data: bytes, random: Random) -> bytes:
    """The same archive, sound, with a changed description of the tensors in it."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return flipped(data, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            inside = old.read(name)
            change = [flipped, cut, moved, larger][random.integers(4)]
            new.writestr(name, change(inside, random) if name.endswith("data.pkl") else inside)
    return buffer.getvalue()


HOW: list[Callable[[bytes, Random], bytes]] = [flipped, cut, moved, larger, repickled]


@pytest.mark.parametrize("form", ["pth", "old pth", "safetensors", "attack"])
def test_changed_checkpoints_are_read_or_refused(form: str, tmp_path: Path) -> None:
    owned, file = tmp_path / "owned", tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    sound = {
        "pth": lambda: pickled(state()),
        "old pth": lambda: pickled(state(), _use_new_zipfile_serialization=False),
        "safetensors": lambda: save(state()),
        "attack": lambda: pickled({**state(), "attack": Attack(owned)}),
    }[form]()
    random = np.random.default_rng(7)
    started, memory = time.monotonic(), most_memory()
    refused = 0
    for number in range(CHANGES):
        file.write_bytes(HOW[number % len(HOW)](sound, random))
        problem = ""
        try:
            tensors = read_weights(file)
        except WeightsError as error:
            problem, refused = str(error), refused + 1
        else:
            assert all(isinstance(value, torch.Tensor) for value in tensors.values()), f"change {number}"
        assert problem == to_one_line(problem), f"change {number}"
        assert not owned.exists(), f"change {number} ran code"
    assert 0 < refused < CHANGES or form == "attack"
    assert most_memory() - memory < MEMORY
    assert time.monotonic() - started < SECONDS


def most_memory() -> float:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
