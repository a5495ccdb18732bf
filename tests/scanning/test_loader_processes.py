"""Batches are the same whoever loads them, and no process that ends, hangs or cannot start stops a scan for ever."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vizcnn.errors import ImageError, ShapeError, VizcnnWarning
from vizcnn.inputs.datasets import Images, dataset
from vizcnn.models.model import InputContract
from vizcnn.scanning import loader_processes
from vizcnn.scanning.loader import Batch, split
from vizcnn.scanning.loader_processes import load_batches

pytestmark = [
    pytest.mark.usefixtures("one_thread", "no_children"),
    pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="made for systems that fork"),
]

CONTRACT = InputContract(size=(16, 12), channels=3, mean=(0,) * 3, std=(1,) * 3)
MAIN = os.getpid()


@pytest.fixture
def no_children() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


class Numbered(Images):
    """Images whose number is their value; with something that happens when one of them is read."""

    where = "numbers"

    def __init__(self, count: int, then: Callable[[int], object] = lambda _: None) -> None:
        self.names, self.then = [str(i) for i in range(count)], then

    def read(self, i: int) -> tuple[Tensor, str | None]:
        self.then(i)
        return torch.full((3, 16, 12), i / 1000), f"class {i % 2}"

    def identity(self) -> Iterator[str]:
        yield "numbers"


def beside() -> bool:
    return os.getpid() != MAIN


def batches_of(images: Images, loaders: int | None, size: int = 4) -> list[Batch]:
    found = load_batches(images, CONTRACT, (16, 12), split(range(len(images)), size), loaders)
    return [Batch(b.numbers, None if b.inputs is None else b.inputs.clone(), b.labels, b.unreadable) for b in found]


def assert_numbered(found: list[Batch], count: int) -> None:
    assert torch.cat([batch.numbers for batch in found]).tolist() == list(range(count))
    inputs = torch.cat([batch.inputs for batch in found if batch.inputs is not None])
    assert inputs.shape == (count, 3, 16, 12)
    assert torch.equal(inputs, (torch.arange(count) / 1000)[:, None, None, None].expand_as(inputs))
    assert [label for batch in found for label in batch.labels] == [f"class {i % 2}" for i in range(count)]


@pytest.mark.parametrize("loaders", [0, 1, 3, 40, None])
def test_batches_come_in_their_order_and_whole(loaders: int | None) -> None:
    assert_numbered(batches_of(Numbered(70), loaders), 70)


def spawning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems where processes are not forked."""
    monkeypatch.setattr(loader_processes, "choose_context", lambda: multiprocessing.get_context("spawn"))


def test_processes_that_are_not_forked_send_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = dataset([*torch.rand(5, 3, 16, 12), "nowhere.png", *torch.rand(3, 3, 16, 12)])
    forked = batches_of(images, 1)
    spawning(monkeypatch)
    for one, other in zip(forked, batches_of(images, 1), strict=True):
        assert one.numbers.equal(other.numbers)
        assert one.inputs is not None
        assert other.inputs is not None
        assert one.inputs.equal(other.inputs)
        assert one.unreadable == other.unreadable
    assert [number for batch in forked for number, _ in batch.unreadable] == [5]


def test_processes_are_two_batches_ahead_and_no_more(tmp_path: Path) -> None:
    images = Numbered(40, lambda i: (tmp_path / str(i)).touch())
    made = load_batches(images, CONTRACT, (16, 12), split(range(40), 4), 1)
    next(made)
    end = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == 8
    made.close()


def in_a_process(work: Callable[[], object]) -> int | None:
    """The exit status of a process that does this."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


def test_neither_files_nor_shared_files_are_needed() -> None:
    """With a limit on files as with a full /dev/shm, where a batch could only be lost."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        assert_numbered(batches_of(Numbered(200), 2, 50), 200)

    assert in_a_process(work) == 0


def test_a_process_that_is_killed_is_said_and_its_images_are_read_here() -> None:
    images = Numbered(60, lambda i: os.kill(os.getpid(), signal.SIGKILL) if i == 21 and beside() else None)
    with pytest.warns(
        VizcnnWarning, match=r"has ended .SIGKILL, out of memory\?.; images are read in this process now"
    ):
        found = batches_of(images, 2)
    assert_numbered(found, 60)


def test_a_process_that_leaves_is_said_and_its_images_are_read_here() -> None:
    images = Numbered(20, lambda i: os._exit(3) if i == 9 and beside() else None)
    with pytest.warns(VizcnnWarning, match="has ended .exit status 3.; images are read in this process now"):
        found = batches_of(images, 2)
    assert_numbered(found, 20)


def test_ctrl_c_is_not_for_loader_processes() -> None:
    """The process that started them answers it."""
    images = Numbered(20, lambda i: os.kill(os.getpid(), signal.SIGINT) if i == 9 and beside() else None)
    assert_numbered(batches_of(images, 2), 20)


def crash(i: int) -> None:
    if i == 9:
        faulthandler.disable()
        os.kill(os.getpid(), signal.SIGSEGV)


def test_an_image_that_a_process_crashes_at_is_not_read_here() -> None:
    with pytest.raises(ImageError, match=r"that read images 8 to 11 .'8' to '11'. crashed .SIGSEGV.: one of these"):
        batches_of(Numbered(20, crash), 2)


def test_a_process_that_is_silent_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "_PATIENCE", 0.3)
    with pytest.raises(ImageError, match=r"images 8 to 11 .* have not been read within 0.3 s.*--loaders 0"):
        batches_of(Numbered(20, lambda i: time.sleep(60 * (i == 9))), 2)


def test_processes_that_cannot_be_started_are_said_and_images_are_read_here() -> None:
    """A process of a pool may start no others."""

    def work() -> None:
        with pytest.warns(VizcnnWarning, match="no process for reading can be started .daemonic processes"):
            assert_numbered(batches_of(Numbered(30), 2), 30)

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_data_set_that_cannot_be_sent_to_a_process_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    spawning(monkeypatch)
    with pytest.warns(VizcnnWarning, match="no process for reading can be started .*lambda"):
        assert_numbered(batches_of(Numbered(12, lambda _: None), 1), 12)


def test_loader_processes_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Also where that is killed and can say nothing."""

    def then(i: int) -> None:
        (tmp_path / f"{os.getpid()}").touch()
        time.sleep(60 * (i > 20))

    process = multiprocessing.get_context("fork").Process(target=batches_of, args=(Numbered(40, then), 2))
    process.start()
    end = time.monotonic() + 30
    while len(pids := [int(p.name) for p in tmp_path.iterdir()]) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(pids) == 2
    process.kill()
    process.join()
    while (left := [pid for pid in pids if running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class OwnError(Exception):
    """One that cannot be sent to another process."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.file = sys.stdin


def fail(error: Exception) -> Callable[[int], None]:
    def then(i: int) -> None:
        if i == 5:
            raise error

    return then


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("x"), KeyError, "x"),
        (ShapeError("bent"), ShapeError, "^bent$"),
        (OwnError(1, 2), RuntimeError, "^OwnError: 1 and 2$"),
    ],
)
def test_an_error_of_the_data_set_is_the_error_here_with_its_place(
    error: Exception, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        batches_of(Numbered(20, fail(error)), 2)
    assert "in then" in str(caught.value.__cause__)


def warn(i: int) -> None:
    if i in (3, 9):
        warnings.warn(f"image {i} is odd", VizcnnWarning, stacklevel=2)


@pytest.mark.parametrize("loaders", [0, 2])
def test_what_a_process_is_warned_of_is_warned_of_here(loaders: int) -> None:
    with pytest.warns(VizcnnWarning) as said:
        assert_numbered(batches_of(Numbered(20, warn), loaders), 20)
    assert [str(each.message) for each in said] == ["image 3 is odd", "image 9 is odd"]


def warn_alike(_: int) -> None:
    warnings.warn("this image is odd", VizcnnWarning, stacklevel=1)


@pytest.mark.parametrize("loaders", [0, 2])
def test_the_same_warning_of_many_images_is_said_once(loaders: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        batches_of(Numbered(20, warn_alike), loaders)
    assert len(said) == 1


@pytest.mark.parametrize("loaders", [0, 2])
def test_reading_leaves_no_trace_in_the_process(loaders: int) -> None:
    def state() -> list[Any]:
        handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
        drawn = [torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())]
        return [handlers, drawn, torch.get_num_threads(), multiprocessing.get_start_method(allow_none=True)]

    before = state()
    batches_of(Numbered(20), loaders)
    assert state() == before
