"""A scan on several processes or machines finds what one process finds, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support import small_cnn
from torch import Tensor

import vizcnn
from vizcnn.cli.main import main
from vizcnn.errors import DegenerateResult, OutputError, ParameterError
from vizcnn.models.model import Model
from vizcnn.scanning import Index, Part, merge_indexes, open_cluster, scan

distributed = pytest.importorskip("distributed")

OPTIONS: dict[str, Any] = {"batch": 4, "shard_size": 5, "top": 3, "threads": 1, "progress": False}

NETWORK = """
import time, torch, vizcnn
from torch import nn

class Slow(nn.Sequential):
    pause = 0.0

    def forward(self, x):
        time.sleep(self.pause)
        return super().forward(x)

class Mixing(nn.Conv2d):
    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0)

def model(*layers, pause=0.0):
    torch.manual_seed(0)
    network = Slow(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.pause = pause
    return vizcnn.Model(network, size=16, name="own")

def fast():
    return model()

def slow():
    return model(pause=0.15)

def mixing():
    return model(Mixing(6, 2, 3))
"""


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Any]:
    """A client of two worker processes on this machine."""
    with open_cluster(None, 2) as client:
        yield client


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file with networks that no worker can import."""
    (tmp_path / "own.py").write_text(NETWORK)
    return tmp_path / "own.py"


def model_of() -> Model:
    return Model(small_cnn(), size=16, name="net")


def pictures(count: int = 40) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(24):
        place = tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 16, 3), np.uint8)).save(place)
    (tmp_path / "photos" / "a" / "bad.png").write_text("no image")
    return tmp_path / "photos"


def test_two_worker_processes_find_what_one_process_finds(two_workers: Any, photos: Path, tmp_path: Path) -> None:
    serial = scan(model_of(), photos, tmp_path / "serial", loaders=0, **OPTIONS)
    spread = scan(model_of(), photos, tmp_path / "spread", client=two_workers, **OPTIONS)
    assert spread.complete
    assert spread.digest == serial.digest
    assert spread.unreadable == serial.unreadable
    assert len({*two_workers.run(os.getpid).values(), os.getpid()}) == 3


def test_tensors_and_archives_reach_the_workers(two_workers: Any, photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "x"), "tar", photos)
    for name, source in (("tensors", pictures()), ("archive", tmp_path / "x.tar")):
        serial = scan(model_of(), source, tmp_path / f"{name}-serial", loaders=0, **OPTIONS)
        spread = scan(model_of(), source, tmp_path / f"{name}-spread", client=two_workers, **OPTIONS)
        assert spread.digest == serial.digest


def test_a_worker_that_dies_changes_nothing(two_workers: Any, own: Path, tmp_path: Path) -> None:
    serial = scan(vizcnn.load(f"{own}:slow"), pictures(), tmp_path / "serial", loaders=0, **OPTIONS)
    folder, killed = tmp_path / "spread", list[int]()

    def kill() -> None:
        while len(list(folder.glob("shard-*"))) < 2:
            time.sleep(0.01)
        victim = next(pid for worker, pid in two_workers.run(os.getpid).items() if two_workers.processing()[worker])
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    spread = scan(vizcnn.load(f"{own}:slow"), pictures(), folder, client=two_workers, **OPTIONS)
    killer.join(30)
    assert len(killed) == 1
    assert spread.complete
    assert spread.digest == serial.digest
    assert killed[0] not in two_workers.run(os.getpid).values()


def test_a_worker_of_several_threads_does_one_shard_at_a_time(own: Path, tmp_path: Path) -> None:
    serial = scan(vizcnn.load(f"{own}:fast"), pictures(), tmp_path / "serial", loaders=0, **OPTIONS)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0") as place,
        distributed.Client(place) as client,
    ):
        spread = scan(vizcnn.load(f"{own}:slow"), pictures(), tmp_path / "spread", client=client, **OPTIONS)
    assert spread.digest == serial.digest


@pytest.mark.usefixtures("two_workers")
def test_a_second_cluster_on_the_same_machine_is_no_trouble() -> None:
    with open_cluster(None, 1) as client:
        assert client.submit(abs, -3).result() == 3


def test_an_error_on_a_worker_is_the_error_here(two_workers: Any, own: Path, tmp_path: Path) -> None:
    with pytest.raises(DegenerateResult, match="of the same image differs"):
        scan(vizcnn.load(f"{own}:mixing"), pictures(), tmp_path, client=two_workers, **OPTIONS)
    assert not list(tmp_path.glob("shard-*"))


def test_a_scan_begun_alone_is_continued_by_workers_and_the_other_way_round(two_workers: Any, tmp_path: Path) -> None:
    serial = scan(model_of(), pictures(), tmp_path / "a", loaders=0, **OPTIONS)
    scan(model_of(), pictures(), tmp_path / "b", part=Part(1, 3), loaders=0, **OPTIONS)
    scan(model_of(), pictures(), tmp_path / "b", part=Part(2, 3), client=two_workers, **OPTIONS)
    assert len(Index.open(tmp_path / "b").pending()) == 2
    assert scan(model_of(), pictures(), tmp_path / "b", loaders=0, **OPTIONS).digest == serial.digest


def test_the_command_line_uses_a_scheduler(two_workers: Any, own: Path, photos: Path, tmp_path: Path) -> None:
    address = two_workers.scheduler_info()["address"]
    options = ["-m", f"{own}:fast", "--batch=4", "--shard-size=5", "--top=3", "--threads=1", "--json"]
    found = []
    for name, more in (("serial", ["--loaders=0"]), ("spread", ["--dask", address])):
        answer = CliRunner().invoke(main, ["scan", str(photos), "-o", str(tmp_path / name), *options, *more])
        assert answer.exit_code == 3, answer.output
        found.append(json.loads(answer.stdout)["results"][0])
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["unreadable"] == found[1]["unreadable"] == [["a/bad.png", "a/bad.png is not an image in "
        "a format that Pillow reads"]]  # fmt: skip


def test_parts_in_one_folder_are_the_whole_scan(tmp_path: Path) -> None:
    serial = scan(model_of(), pictures(), tmp_path / "serial", loaders=0, **OPTIONS)
    for i in (3, 1, 2):
        index = scan(model_of(), pictures(), tmp_path / "parts", part=Part(i, 3), loaders=0, **OPTIONS)
        assert index.complete == (i == 2)
    assert index.digest == serial.digest
    assert merge_indexes(tmp_path / "parts", []).digest == serial.digest


def test_parts_in_folders_of_their_own_are_merged(tmp_path: Path) -> None:
    serial = scan(model_of(), pictures(), tmp_path / "serial", loaders=0, **OPTIONS)
    folders = [tmp_path / str(i) for i in (1, 2, 3)]
    for i, folder in enumerate(folders, start=1):
        scan(model_of(), pictures(), folder, part=Part(i, 3), loaders=0, **OPTIONS)
    with pytest.raises(OutputError, match="3 of 8 shards of .*/1 are missing or damaged, the first is 1|2 of 8 shards"):
        merge_indexes(folders[0], folders[1:2])
    merged = merge_indexes(folders[0], folders[1:])
    assert merged.complete
    assert merged.digest == serial.digest
    assert Index.open(folders[0]).digest == serial.digest
    assert not Index.open(folders[1]).complete


def test_parts_of_different_scans_are_not_merged(tmp_path: Path) -> None:
    scan(model_of(), pictures(), tmp_path / "a", part=Part(1, 2), loaders=0, **OPTIONS)
    scan(model_of(), pictures(), tmp_path / "b", part=Part(2, 2), loaders=0, **OPTIONS | {"top": 4})
    with pytest.raises(ParameterError, match="b holds another scan than .*a .top: 3 there, 4 here."):
        merge_indexes(tmp_path / "a", [tmp_path / "b"])
    with pytest.raises(OutputError, match="holds no index"):
        merge_indexes(tmp_path / "a", [tmp_path])


@pytest.mark.parametrize(("i", "n"), [(0, 2), (3, 2), (1, 0)])
def test_parts_that_do_not_exist_are_refused(i: int, n: int) -> None:
    with pytest.raises(ParameterError, match="a part is i/n with i from 1 to n"):
        Part(i, n)


def test_more_parts_than_shards(tmp_path: Path) -> None:
    index = scan(model_of(), pictures(), tmp_path, part=Part(50, 50), loaders=0, **OPTIONS)
    assert len(index.pending()) == 8


def test_without_distributed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ParameterError, match=r"a cluster needs Dask distributed: pip install 'vizcnn\[cluster\]'"),
        open_cluster(None, 2),
    ):
        pass


def test_neither_workers_nor_a_scheduler_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with open_cluster(None, None) as client:
        assert client is None


def test_workers_and_a_scheduler_are_too_much() -> None:
    with pytest.raises(ParameterError, match="not both"), open_cluster("tcp://127.0.0.1:1", 2):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x:1", "tcp://"])
def test_a_scheduler_that_does_not_answer_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr("vizcnn.scanning.cluster._PATIENCE", 1)
    with pytest.raises(ParameterError, match=f"no Dask scheduler answers at {address}"), open_cluster(address, None):
        pass
