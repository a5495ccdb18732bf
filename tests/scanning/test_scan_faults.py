"""A scan may be stopped at any moment by anything: called again it continues, and finds the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support_process import hear_ctrl_c
from support_scanning import OPTIONS, SHARDED, model_of, pictures, shards_of

import vizcnn
from vizcnn.errors import OutputError, ParameterError
from vizcnn.scanning import Index, Part, scan

pytestmark = pytest.mark.usefixtures("one_thread")


NETWORK = """
import os, time, torch, vizcnn
from torch import nn

class Slow(nn.Sequential):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().forward(x)

def make():
    torch.manual_seed(0)
    return vizcnn.Model(Slow(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(6, 4)), size=16, name="slow")
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 small photographs in two folders."""
    for i in range(60):
        place = tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)).save(place)
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path / "photos"


def start(photos: Path, index: Path, *more: str, slow: float = 0, **settings: Any) -> subprocess.Popen[str]:
    """`vizcnn scan` in a process of its own."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (OPTIONS | {"loaders": 0}).items()]
    command = [sys.executable, "-m", "vizcnn", "scan", str(photos), "-m", f"{photos.parent / 'net.py'}:make"]
    return subprocess.Popen(
        [*command, "-o", str(index), *options, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLOW": str(slow)},
        **{"preexec_fn": hear_ctrl_c, **settings},
    )


def undisturbed(photos: Path, index: Path, **more: Any) -> Index:
    """The same scan in this process."""
    return scan(vizcnn.load(f"{photos.parent / 'net.py'}:make"), photos, index, **SHARDED | more)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, (out, err)
    assert "Traceback" not in err
    return out + err


# killed and continued


def test_a_scan_that_is_killed_again_and_again_finds_the_same_and_does_nothing_twice(
    photos: Path, tmp_path: Path
) -> None:
    index, written = tmp_path / "index", dict[str, int]()
    for moment in (0, 2, 5):  # shards that are done when it is killed
        process = start(photos, index, slow=0.15)
        wait_for(lambda least=moment: len(shards_of(index)) > least, process)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not Index.open(index).complete
        assert written.items() <= shards_of(index).items()
        written = shards_of(index)
    assert "60 images" in finished(start(photos, index))
    assert written.items() <= shards_of(index).items()
    assert Index.open(index).complete
    assert Index.open(index).digest == undisturbed(photos, tmp_path / "undisturbed").digest
    written = shards_of(index)
    assert undisturbed(photos, index).complete
    assert shards_of(index) == written


def test_ctrl_c_is_exit_status_130_and_leaves_whole_shards_and_no_process(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    process = start(photos, index, "--loaders", "1", slow=0.3, start_new_session=True)
    wait_for(lambda: len(shards_of(index)) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert "the same command goes on" in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    found = Index.open(index)
    assert not found.complete
    assert 2 <= len(found.shards) - len(found.pending()) < 8


def test_what_a_killed_write_leaves_behind_is_no_shard(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    index.shard_file(2).unlink()
    (tmp_path / ".shard-00002-x7.safetensors").write_bytes(b"half of i")
    again = scan(model_of(), pictures(), tmp_path, **SHARDED)
    assert again.digest == index.digest
    assert not again.pending()


def test_a_scan_stopped_between_its_two_first_files_begins_again(tmp_path: Path) -> None:
    first = scan(model_of(), pictures(), tmp_path / "a", **SHARDED)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "images.json").write_bytes((tmp_path / "a" / "images.json").read_bytes())
    assert scan(model_of(), pictures(), tmp_path / "b", **SHARDED).digest == first.digest


def test_a_scan_continues_with_the_threads_that_it_was_begun_with(tmp_path: Path) -> None:
    without = {key: value for key, value in SHARDED.items() if key != "threads"}
    first = scan(model_of(), pictures(), tmp_path, **SHARDED)
    first.shard_file(0).unlink()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert scan(model_of(), pictures(), tmp_path, **without).digest == first.digest
    finally:
        torch.set_num_threads(before)


# another scan's folder


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"model": model_of(1)}, "model weights_sha256: .* there, .* here"),
        (
            {"model": model_of(mean=(0.5, 0.5, 0.5))},
            r"model input mean: \[0.0, 0.0, 0.0\] there, \[0.5, 0.5, 0.5\] here",
        ),
        ({"images": pictures(41)}, "dataset fingerprint: .* dataset images: 40 there, 41 here"),
        ({"images": pictures().flip(0)}, "dataset fingerprint: .* there, .* here"),
        ({"labels": {"tensor 0": "x"}}, "dataset fingerprint"),
        ({"top": 4}, "top: 3 there, 4 here"),
        ({"rank": "mean"}, "rank: max there, mean here"),
        ({"batch": 5}, "batch: 4 there, 5 here"),
        ({"shard_size": 12}, "shards: .* there, .* here"),
        ({"layers": ["0"]}, r"layers 3: \[8, 8, 8\] there, None here"),
        ({"threads": 2}, "threads: 1 there, 2 here"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_another_model_data_set_or_option_is_refused_with_what_differs(
    tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    given: dict[str, Any] = {"model": model_of(), "images": pictures(), **SHARDED}
    scan(folder=tmp_path, **given)
    before = shards_of(tmp_path), (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ParameterError, match=f"holds another scan .*{difference}.* Choose another folder"):
        scan(folder=tmp_path, **given | change)
    assert (shards_of(tmp_path), (tmp_path / "manifest.json").read_bytes()) == before


def test_another_device_is_refused(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path, **SHARDED)
    Index(tmp_path, {**index.identity, "device": "cuda"}, index.facts).write()
    with pytest.raises(ParameterError, match="device: cuda there, cpu here"):
        scan(model_of(), pictures(), tmp_path, **SHARDED)
    assert index.complete


def test_changed_files_are_another_data_set(photos: Path, tmp_path: Path) -> None:
    scan(model_of(), photos, tmp_path / "index", **SHARDED)
    (photos / "a" / "00.png").rename(photos / "b" / "00.png")
    with pytest.raises(ParameterError, match="dataset fingerprint"):
        scan(model_of(), photos, tmp_path / "index", **SHARDED)


def test_a_shard_of_another_scan_is_refused_and_kept(tmp_path: Path) -> None:
    scan(model_of(1), pictures(), tmp_path / "a", **SHARDED)
    index = scan(model_of(), pictures(), tmp_path / "b", **SHARDED)
    foreign = (tmp_path / "a" / "shard-00001.safetensors").read_bytes()
    index.shard_file(1).write_bytes(foreign)
    with pytest.raises(ParameterError, match=r"shard-00001.safetensors belongs to another scan. Delete it or choose"):
        scan(model_of(), pictures(), tmp_path / "b", **SHARDED)
    assert index.shard_file(1).read_bytes() == foreign


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"name": "my web app"}', '{"format": 1}', "\x00\xff", "[" * 99999, "9" * 9999]
)
def test_a_manifest_of_something_else_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, "latin-1")
    works: list[Callable[[], Index]] = [
        lambda: scan(model_of(), pictures(), tmp_path, **SHARDED),
        lambda: Index.open(tmp_path),
    ]
    for work in works:
        with pytest.raises(OutputError, match=r"manifest.json is no manifest of a scan .*Choose another folder"):
            work()
    assert (tmp_path / "manifest.json").read_text("latin-1") == text
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 7, "identity": {}, "facts": {}}')
    with pytest.raises(
        OutputError, match="is of format 7, this version reads 2 and 3: scan again into another folder"
    ) as error:
        Index.open(tmp_path)
    assert "no manifest" not in str(error.value)


def test_a_file_of_somebody_elses_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text('{"annotations": []}')
    with pytest.raises(ParameterError, match="images.json is not of this scan and would be overwritten"):
        scan(model_of(), pictures(), tmp_path, **SHARDED)
    assert (tmp_path / "images.json").read_text() == '{"annotations": []}'


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert scan(model_of(), pictures(), tmp_path, **SHARDED).complete
    assert (tmp_path / "notes.txt").read_text() == "mine"


# places that cannot be written to


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder .*/file/index: Not a directory. Choose another"):
        scan(model_of(), pictures(), tmp_path / "file" / "index", **SHARDED)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without /proc")
def test_a_folder_that_may_not_be_written_to_is_a_clear_error() -> None:
    """Bits of permission do not bind an administrator; a place of the system without files does."""
    with pytest.raises(OutputError, match="cannot write /proc/self/fd/images.json: "):
        scan(model_of(), pictures(), "/proc/self/fd", **SHARDED)


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))


def test_a_full_disk_is_one_clear_line_and_loses_nothing(photos: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    undisturbed(photos, index, part=Part(1, 2))
    written = shards_of(index)
    assert len(written) == 4
    said = finished(start(photos, index, preexec_fn=small_files), 1)
    assert said.count("\n") == 1
    assert "cannot write" in said
    assert "File too large" in said
    assert shards_of(index) == written
    assert not list(index.glob(".*"))
    assert undisturbed(photos, index).digest == undisturbed(photos, tmp_path / "other").digest


# images that cannot be read


def test_unreadable_images_are_skipped_counted_and_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "04.png").write_text("no image")
    (photos / "b" / "05.png").write_bytes((photos / "b" / "05.png").read_bytes()[:100])
    (photos / "a" / "00.png").write_bytes(b"")
    out, err = (process := start(photos, tmp_path / "index", "--json")).communicate(timeout=100)
    assert process.returncode == 3
    assert "vizcnn: a/04.png was skipped: a/04.png is not an image" in err
    found = json.loads(out)
    assert [name for name, _ in found["results"][0]["unreadable"]] == ["a/00.png", "a/04.png", "b/05.png"]
    assert len(found["errors"]) == 3
    index = Index.open(tmp_path / "index")
    assert index.complete
    assert index.tally("0").counted.tolist() == [57, 0]
    bad = [index.names.index(name) for name in ("a/00.png", "a/04.png", "b/05.png")]
    assert [index.labels[number] for number in bad] == [None] * 3
    assert not set(bad) & set(index.tally("0").images.flatten().tolist())


def test_a_batch_and_a_shard_of_nothing_but_unreadable_images(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / "photos").mkdir(exist_ok=True)
        if i < 10:
            (tmp_path / "photos" / f"{i:02}.png").write_text("no image")
        else:
            Image.new("RGB", (16, 16), (i * 10, 9, 8)).save(tmp_path / "photos" / f"{i:02}.png")
    index = scan(model_of(), tmp_path / "photos", tmp_path / "index", **SHARDED)
    assert [number for number, _ in index.unreadable] == list(range(10))
    assert index.tally("0").counted.tolist() == [10, 0]


def test_nothing_but_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no image")
    index = scan(model_of(), tmp_path / "photos", tmp_path / "index", **SHARDED)
    assert len(index.unreadable) == 1
    assert index.complete


# memory


PEAK = """
import resource, sys, torch, vizcnn
from torch import nn
from torch.utils.data import Dataset
from vizcnn.scanning import scan

class Grey(Dataset):
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, i): return torch.full((3, 64, 64), i / self.count)

torch.set_num_threads(1)
torch.manual_seed(0)
model = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)), size=64)
options = dict(batch=16, shard_size=64, loaders=0, progress=False)
scan(model, Grey(128), sys.argv[1] + "/warm", **options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scan(model, Grey(1024), sys.argv[1] + "/real", **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_the_batch_and_not_by_the_data_set(tmp_path: Path) -> None:
    """1024 images instead of 128: inputs alone would be 44 MB more, activations 500."""
    answer = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 30_000  # kB
