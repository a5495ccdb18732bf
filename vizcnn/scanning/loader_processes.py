"""Loader processes: batches of images are read beside the network.

Of n processes each loads every n-th batch and is at most two ahead. A forked one puts the inputs into a buffer that was
mapped into memory for both sides before it started. This memory belongs to no file, so it works with a small /dev/shm
and under a limit on the size of files. Everything else comes through a pipe, which also tells when a process has ended.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from math import prod
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import ImageError, VizcnnWarning
from vizcnn.inputs.datasets import Images
from vizcnn.models.model import InputContract
from vizcnn.process import begin_helper, choose_context, ignore_warnings
from vizcnn.scanning.loader import Batch, Loader

_FEW_IMAGES = 64  # so few are read sooner than processes have started
_BATCHES_AHEAD = 2  # batches that a process loads before they are asked for
_PATIENCE = 600.0  # s that a batch may take: it is a long way into a large compressed archive
_GRACE = 5.0  # s that a process may take to end
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"}  # what a decoder of images can die of

_NO_BATCH = Batch(torch.empty(0, dtype=torch.int64), None, (), ())


class _LostProcessError(Exception):
    """A loader process cannot be started, or has ended."""


class _RemoteError(Exception):
    """The traceback of an error in a loader process; here it is the error's cause."""


def load_batches(
    images: Images, contract: InputContract, size: tuple[int, int], batches: Sequence[range], loaders: int | None
) -> Generator[Batch]:
    """The batches of these numbers, in order. A batch's inputs are overwritten when the next one is asked for.

    size: height and width of the inputs. loaders: the number of loader processes, by default what suits the number of
    images; they end when the generator is closed. Where none can be started, or one is killed, images are read in this
    process, with a warning.

    Raises ShapeError, and ImageError for images at which a loader process crashes or hangs."""
    loader = Loader(images, contract, size)
    count = min(len(batches), _choose_count(sum(map(len, batches))) if loaders is None else loaders)
    done = 0
    if count:
        try:
            with closing(_load_in_processes(loader, batches, count)) as made:
                for batch in made:
                    yield batch
                    done += 1
        except _LostProcessError as lost:
            warnings.warn(f"{lost}; images are read in this process now, slower", VizcnnWarning, stacklevel=2)
    for numbers in batches[done:]:
        yield loader.load(numbers)


def _choose_count(images: int) -> int:
    return 0 if images <= _FEW_IMAGES else max(1, min(8, (os.cpu_count() or 1) // 2))


def _load_in_processes(loader: Loader, batches: Sequence[range], count: int) -> Generator[Batch]:
    """The batches in order, loaded by so many processes. Raises _LostProcessError."""
    shown: dict[Any, Any] = {}
    with ExitStack() as running:
        try:
            processes = [
                running.enter_context(closing(_LoaderProcess(loader, batches[i::count], shown))) for i in range(count)
            ]
        except Exception as error:  # such as of a limit on processes, or a data set that cannot be sent to one
            raise _LostProcessError(f"no process for reading can be started ({error})") from error
        for i in range(len(batches)):
            yield from processes[i % count].next()


@dataclass(frozen=True)
class _Reply:
    """What a loader process sends: a batch or an error, and the warnings that came up.

    place: the error's traceback. warnings: text, category, file and line of each."""

    batch: Batch
    error: Exception | None = None
    place: str = ""
    warnings: Sequence[tuple[str, type[Warning], str, int]] = ()


class _LoaderProcess:
    """A process that loads some batches. shown: Python's registry of warnings, so that each is shown only once."""

    def __init__(self, loader: Loader, batches: Sequence[range], shown: dict[Any, Any]) -> None:
        context = choose_context()
        self.loader, self.batches, self.shown = loader, iter(enumerate(batches)), shown
        shape = (_BATCHES_AHEAD, max(map(len, batches)), *loader.shape)
        self.buffer = _share_memory(shape) if context.get_start_method() == "fork" else None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(loader, batches, theirs, self.buffer), daemon=True)
        with (
            ignore_warnings()
        ):  # Python's, of forking beside threads: a loader process takes no lock that these could hold
            self.process.start()
        theirs.close()  # so that the pipe breaks when the process ends

    def next(self) -> Iterator[Batch]:
        """Its next batch. When the iterator goes on, the process may overwrite the inputs."""
        n, numbers = next(self.batches)
        batch = self._receive(numbers)
        if self.buffer is not None and len(batch.numbers):
            batch = replace(batch, inputs=self.buffer[n % _BATCHES_AHEAD, : len(batch.numbers)])
        yield batch
        with suppress(OSError):  # it has loaded all of its batches and is gone
            self.pipe.send_bytes(b"")

    def _receive(self, numbers: range) -> Batch:
        ready = wait([self.pipe, self.process.sentinel], _PATIENCE)
        if not ready:
            raise ImageError(
                f"{self._name_images(numbers)} have not been read within {_PATIENCE:g} s. Does their drive answer? "
                "With loaders=0 (--loaders 0) a scan reads them in its own process, however long that takes"
            )
        if self.pipe not in ready:
            raise self._explain_end(numbers)
        try:
            reply: _Reply = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._explain_end(numbers) from error
        for text, category, file, line in reply.warnings:
            warnings.warn_explicit(text, category, file, line, registry=self.shown)
        if reply.error is not None:
            raise reply.error from _RemoteError(reply.place)
        return reply.batch

    def _explain_end(self, numbers: range) -> Exception:
        """The error to raise after the process has ended."""
        self.process.join(_GRACE)
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if how in _CRASHES:
            return ImageError(
                f"the process that read {self._name_images(numbers)} crashed ({how}): one of these files is too much "
                "for its decoder. Leave it out"
            )
        cause = ", out of memory?" if how == "SIGKILL" else ""
        return _LostProcessError(f"a process for reading has ended ({how}{cause})")

    def _name_images(self, numbers: range) -> str:
        names = self.loader.images.names
        return f"images {numbers[0]} to {numbers[-1]} ({names[numbers[0]]!r} to {names[numbers[-1]]!r})"

    def close(self) -> None:
        """Kill the process, which holds nothing that it would have to clean up."""
        self.pipe.close()
        self.process.kill()
        self.process.join(_GRACE)


def _share_memory(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor of a shape in memory that forked processes share."""
    return torch.frombuffer(mmap.mmap(-1, 4 * prod(shape)), dtype=torch.float32).view(shape)


def _serve(loader: Loader, batches: Sequence[range], pipe: Connection, buffer: Tensor | None) -> None:
    """Load batches and send them through a pipe: what a loader process runs."""
    begin_helper(os.getppid())
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # nobody listens any more
        for n, numbers in enumerate(batches):
            if n >= _BATCHES_AHEAD:
                pipe.recv_bytes()
            pipe.send_bytes(_pack_reply(loader, numbers, None if buffer is None else buffer[n % _BATCHES_AHEAD]))


def _pack_reply(loader: Loader, numbers: range, buffer: Tensor | None) -> bytes:
    """The pickled reply with a batch of these numbers. Inputs that lie in the buffer are not in it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            batch = loader.load(numbers, buffer)
            reply = _Reply(batch if buffer is None else replace(batch, inputs=None))
        except Exception as error:
            reply = _Reply(_NO_BATCH, error, f"\n\n{traceback.format_exc()}")
    reply = replace(reply, warnings=[(str(w.message), w.category, w.filename, w.lineno) for w in caught])
    try:
        packed = pickle.dumps(reply)
        if reply.error or reply.warnings:
            pickle.loads(packed)
    except Exception:  # an error or a kind of warning of other people that cannot be sent
        other = reply.error and RuntimeError(f"{type(reply.error).__name__}: {reply.error}")
        return pickle.dumps(replace(reply, error=other, warnings=()))
    return packed
