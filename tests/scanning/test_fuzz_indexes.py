"""Whatever is done to the files of an index, it gives the right answer or one clear error, and its scan mends it."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_cnn
from support_scanning import QUIET, Tensors

from vizcnn.errors import VizcnnError
from vizcnn.models.model import Model
from vizcnn.models.terms import Unit
from vizcnn.scanning import Index, find_best, scan

pytestmark = pytest.mark.usefixtures("one_thread")

COUNT = 240
OPTIONS: dict[str, Any] = {**QUIET, "layers": ["3", "output"], "top": 2, "batch": 2, "shard_size": 3, "threads": 1}

NESTED: list[Any] = []
for _ in range(100):
    NESTED = [NESTED]


def images() -> Tensors:
    """Eight labelled inputs, of which the last cannot be read."""
    inputs = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs[7, 0, 0, 0] = torch.nan
    return Tensors(inputs, torch.arange(8) % 3)


def scanned(folder: Path) -> Index:
    return scan(Model(small_cnn(), size=8, name="net", labels=list("abcde")), images(), folder, **OPTIONS)


def answers(folder: Path) -> list[Any]:
    """Everything that can be asked of an index."""
    index = Index.open(folder, images())
    found = [find_best(index, Unit(layer, channel), 2) for layer, channel in (("3", 0), ("3", 7), ("", 2))]
    shown = [[(one.number, one.name, one.label, one.value, one.at, one.box) for one in row] for row in found]
    known = [index.tally(layer) for layer in index.layers]
    statistics = [[tally.statistics(0), {k: v.tolist() for k, v in tally.class_means().items()}] for tally in known]
    return [shown, statistics, index.names, index.labels, index.unreadable, index.classes, index.rank, index.contract]


# what is done to a file, its content and another file's


def flipped(rng: random.Random, content: bytes, _: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def cut_out(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[stop:]


def put_in(rng: random.Random, content: bytes, other: bytes) -> bytes:
    place, start = rng.randrange(len(content) + 1), rng.randrange(len(other))
    return content[:place] + other[start : start + rng.randrange(1, 400)] + content[place:]


def overwritten(rng: random.Random, content: bytes, _: bytes) -> bytes:
    place, count = rng.randrange(len(content)), rng.randrange(1, 64)
    return (
        content[:place]
        + bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(count))
        + content[place:][count:]
    )


def replaced(_: random.Random, _content: bytes, other: bytes) -> bytes:
    return other


def edited(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """One value of its JSON, or of the JSON in its header, replaced by another."""
    plain = content[:1] in (b"{", b"[")
    end = len(content) if plain else 8 + int.from_bytes(content[:8], "little")
    try:
        found = json.loads(content[0 if plain else 8 : end])
    except ValueError:  # a second change
        return b""
    text = json.dumps(with_other_value(rng, found)).encode()
    return text if plain else len(text).to_bytes(8, "little") + text + content[end:]


ODD: list[Any] = [None, -1, 0, 2**80, 1e308, float("nan"), "", "x\n\0", [], {}, NESTED, True]


def with_other_value(rng: random.Random, value: Any) -> Any:
    keys: list[Any] = [*range(len(value))] if isinstance(value, list) else [*value] if isinstance(value, dict) else []
    if not keys or rng.random() < 0.1:
        return rng.choice([*ODD, [value], str(value)])
    key = rng.choice(keys)
    if isinstance(value, dict) and rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != key}
    value[key] = with_other_value(rng, value[key])
    return value


def in_file(change: Callable[[random.Random, bytes, bytes], bytes]) -> Callable[[random.Random, Path, Path], None]:
    def work(rng: random.Random, file: Path, other: Path) -> None:
        file.write_bytes(change(rng, file.read_bytes() or b"x", other.read_bytes() or b"x"))

    return work


def swap(_: random.Random, file: Path, other: Path) -> None:
    first, second = file.read_bytes(), other.read_bytes()
    file.write_bytes(second)
    other.write_bytes(first)


def delete(_: random.Random, file: Path, _other: Path) -> None:
    file.unlink()


def become_folder(_: random.Random, file: Path, _other: Path) -> None:
    file.unlink()
    file.mkdir()


def become_link(_: random.Random, file: Path, _other: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


CHANGES = [
    *map(in_file, (flipped, flipped, cut_out, put_in, overwritten, replaced, edited, edited, edited)),
    swap,
    delete,
    become_folder,
    become_link,
]


def asked(question: Callable[[Path], Any], folder: Path) -> Any:
    """The answer, or None for one clear error."""
    try:
        return question(folder)
    except VizcnnError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None


def changed(seed: int, whole: Path, folder: Path) -> None:
    """Make a copy of an index, and change one or two of its files."""
    rng = random.Random(seed)
    shutil.copytree(whole, folder)
    files = sorted(folder.iterdir())
    for _ in range(rng.choice((1, 1, 2))):
        file, other = rng.sample(files, 2)
        if file.is_file() and other.is_file():
            rng.choice(CHANGES)(rng, file, other)


@pytest.mark.filterwarnings("ignore:.*were damaged")
def test_an_index_whose_files_were_changed_answers_right_or_not_at_all(tmp_path: Path) -> None:
    whole = scanned(tmp_path / "whole")
    right, digest, outcomes = answers(whole.folder), whole.digest, Counter[str]()
    for seed in range(COUNT):
        folder = tmp_path / str(seed)
        changed(seed, whole.folder, folder)
        answer, stated = asked(answers, folder), asked(lambda folder: Index.open(folder).digest, folder)
        assert answer in (None, right), seed
        assert stated in (None, "", digest), seed
        outcomes["refused"] += answer is None
        if seed % 4 == 0:
            again = asked(lambda folder: scanned(folder).digest, folder)
            assert again in (None, digest), seed
            assert again is None or answers(folder) == right, seed
            outcomes["mended"] += again is not None
    assert outcomes["refused"] > COUNT / 2
    assert outcomes["mended"] > COUNT / 12
