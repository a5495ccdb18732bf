"""Readers: processes that make batches of images beside the network.

Each makes every n-th batch and is at most two ahead. Forked ones put the inputs into memory that was mapped for both
sides before they started. It has no file, so neither a small /dev/shm nor a limit on the size of files is in its way.
Everything else comes through a pipe, which also tells when a reader ends.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
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
from vizcnn.process import no_warnings
from vizcnn.scanning.decode import Batch, Decoder

_ALONE = 64  # so few images are read before readers have started
_AHEAD = 2  # batches that a reader makes before they are asked for
_PATIENCE = 600.0  # s that a batch may take: it is a long way into a large compressed archive
_GRACE = 5.0  # s that a process may take to end
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"}  # what a decoder of images can die of

_NONE = Batch(torch.empty(0, dtype=torch.int64), None, (), ())


class _Lost(Exception):  # noqa: N818 - reads as a sentence
    """A reader cannot be started, or has ended."""


class _There(Exception):  # noqa: N818
    """Where in a reader an error was raised, as its cause here."""


def decoded(
    images: Images, contract: InputContract, size: tuple[int, int], batches: Sequence[range], loaders: int | None
) -> Generator[Batch]:
    """The batches of these numbers, in their order. A batch's inputs are good until the next one is asked for.

    size: height and width of the inputs. loaders: processes that read, which end when the generator is closed; None for
    as many as suit. Where they cannot be had, or one is killed, images are read in this process, with a warning.

    Raises ShapeError, ImageError for images at which a reader crashes or waits for ever."""
    decoder = Decoder(images, contract, size)
    count = min(len(batches), _suitable(sum(map(len, batches))) if loaders is None else loaders)
    done = 0
    if count:
        try:
            with closing(_made_beside(decoder, batches, count)) as made:
                for batch in made:
                    yield batch
                    done += 1
        except _Lost as lost:
            warnings.warn(f"{lost}; images are read in this process now, slower", VizcnnWarning, stacklevel=2)
    for numbers in batches[done:]:
        yield decoder.batch(numbers)


def _suitable(images: int) -> int:
    return 0 if images <= _ALONE else max(1, min(8, (os.cpu_count() or 1) // 2))


def _made_beside(decoder: Decoder, batches: Sequence[range], count: int) -> Generator[Batch]:
    """The batches, made by so many readers."""
    told: dict[Any, Any] = {}
    with ExitStack() as running:
        try:
            readers = [running.enter_context(closing(_Reader(decoder, batches[i::count], told))) for i in range(count)]
        except Exception as error:  # such as of a limit on processes, or a data set that cannot be sent to one
            raise _Lost(f"no process for reading can be started ({error})") from error
        for i in range(len(batches)):
            yield from readers[i % count].next()


@dataclass(frozen=True)
class _Made:
    """What a reader sends: a batch, or the error that it met with the place where; and what it was warned of."""

    batch: Batch
    error: Exception | None = None
    place: str = ""
    warnings: Sequence[tuple[str, type[Warning], str, int]] = ()


class _Reader:
    """A process that makes some batches. told: what Python knows of warnings that were shown, so that each is once."""

    def __init__(self, decoder: Decoder, batches: Sequence[range], told: dict[Any, Any]) -> None:
        context = _context()
        self.decoder, self.batches, self.told = decoder, iter(enumerate(batches)), told
        shape = (_AHEAD, max(map(len, batches)), *decoder.shape)
        self.room = _shared(shape) if context.get_start_method() == "fork" else None
        self.line, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(decoder, batches, theirs, self.room), daemon=True)
        with no_warnings():  # Python's, of forking beside other threads: readers take no locks that these could hold
            self.process.start()
        theirs.close()  # so that the line breaks when the process ends

    def next(self) -> Iterator[Batch]:
        """Its next batch, whose room is free when the iterator goes on."""
        n, numbers = next(self.batches)
        batch = self._received(numbers)
        if self.room is not None and len(batch.numbers):
            batch = replace(batch, inputs=self.room[n % _AHEAD, : len(batch.numbers)])
        yield batch
        with suppress(OSError):  # it has made all of its batches and is gone
            self.line.send_bytes(b"")

    def _received(self, numbers: range) -> Batch:
        ready = wait([self.line, self.process.sentinel], _PATIENCE)
        if not ready:
            raise ImageError(
                f"{self._named(numbers)} have not been read within {_PATIENCE:g} s. Does their drive answer? With "
                "loaders=0 (--loaders 0) a scan reads them in its own process, however long that takes"
            )
        if self.line not in ready:
            raise self._ended(numbers)
        try:
            made: _Made = pickle.loads(self.line.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._ended(numbers) from error
        for text, category, file, line in made.warnings:
            warnings.warn_explicit(text, category, file, line, registry=self.told)
        if made.error is not None:
            raise made.error from _There(made.place)
        return made.batch

    def _ended(self, numbers: range) -> Exception:
        """What to raise when the process has ended."""
        self.process.join(_GRACE)
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if how in _CRASHES:
            return ImageError(
                f"the process that read {self._named(numbers)} crashed ({how}): one of these files is too much for its "
                "decoder. Leave it out"
            )
        return _Lost(f"a process for reading has ended ({how}{', out of memory?' if how == 'SIGKILL' else ''})")

    def _named(self, numbers: range) -> str:
        names = self.decoder.images.names
        return f"images {numbers[0]} to {numbers[-1]} ({names[numbers[0]]!r} to {names[numbers[-1]]!r})"

    def close(self) -> None:
        """End the process; there is nothing that it would have to put away."""
        self.line.close()
        self.process.kill()
        self.process.join(_GRACE)


def _context() -> Any:
    """Forked processes start at once; where forking is not safe, or somebody chose otherwise, others are started."""
    forks = sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) != "spawn"
    return multiprocessing.get_context("fork" if forks else None)


def _shared(shape: tuple[int, ...]) -> Tensor:
    """Memory that forked processes share, float32."""
    return torch.frombuffer(mmap.mmap(-1, 4 * prod(shape)), dtype=torch.float32).view(shape)


def _serve(decoder: Decoder, batches: Sequence[range], line: Connection, room: Tensor | None) -> None:
    """What a reader does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the process that started this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # nobody listens any more
        for n, numbers in enumerate(batches):
            if n >= _AHEAD:
                line.recv_bytes()
            line.send_bytes(_packed(decoder, numbers, None if room is None else room[n % _AHEAD]))


def _end_with(parent: int) -> None:
    """End with the process that started this one, whatever became of it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _packed(decoder: Decoder, numbers: range, room: Tensor | None) -> bytes:
    """What became of a batch, without what lies in the room for it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            batch = decoder.batch(numbers, room)
            made = _Made(batch if room is None else replace(batch, inputs=None))
        except Exception as error:
            made = _Made(_NONE, error, f"\n\n{traceback.format_exc()}")
    made = replace(made, warnings=[(str(w.message), w.category, w.filename, w.lineno) for w in caught])
    try:
        packed = pickle.dumps(made)
        if made.error or made.warnings:
            pickle.loads(packed)
    except Exception:  # an error or a kind of warning of other people that cannot be sent
        other = made.error and RuntimeError(f"{type(made.error).__name__}: {made.error}")
        return pickle.dumps(replace(made, error=other, warnings=()))
    return packed
