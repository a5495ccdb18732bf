"""Saving: results are drawn and written by processes of their own, while the next image is computed.

Such a process needs no network. Where processes start by forking, as on Linux, it starts before the network is read,
and shares what is imported.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vizcnn.errors import VizcnnWarning
from vizcnn.process import begin_helper, choose_context, collect_warnings, ignore_warnings
from vizcnn.results import Result, prepare_drawing

_WORTH = 4  # images that a process has to save to be worth its start
_MOST = 4  # processes: few networks are faster than so many of them
_NICE = 5  # so that the threads that compute, which wait for each other all the time, are hardly interrupted


@dataclass(frozen=True)
class Saved:
    """What is left of a result when it is in its file: the manifest, the words, and what was warned of."""

    manifest: dict[str, Any]
    words: str
    warnings: Sequence[str]


def save(result: Result, output: Path, style: str | None) -> Saved:
    """Write a result to its file, drawn in this style."""
    with collect_warnings() as texts:
        result.save(output, style=style)
    return Saved(result.manifest(), result.describe(), texts)


class Saving:
    """A result on its way to its file: by a process of the pool, or by this one when it is waited for."""

    def __init__(self, result: Result, output: Path, style: str | None, pool: ProcessPoolExecutor | None) -> None:
        self._what = result, output, style
        self._coming: Future[Saved] | None = None
        if pool is not None:
            with suppress(BrokenProcessPool):
                self._coming = pool.submit(save, *self._what)

    def is_done(self) -> bool:
        return self._coming is None or self._coming.done()

    def wait(self) -> Saved:
        """What is left of the result, when it is in its file. Raises what `save` raises."""
        try:
            if self._coming is not None:
                return self._coming.result()
        except BrokenProcessPool:
            warnings.warn(
                "a process that draws pictures has ended, out of memory? They are drawn in this process now, slower",
                VizcnnWarning,
                stacklevel=2,
            )
        except Exception:  # it comes again here, where it shows its place; or the result cannot be sent to a process
            pass
        return save(*self._what)


@contextmanager
def open_pool(images: int) -> Iterator[ProcessPoolExecutor | None]:
    """While the context is open: processes that save the results of so many images; none for a single one."""
    if images < 2:
        yield None
        return
    count = min(_MOST, os.cpu_count() or 1, -(-images // _WORTH))
    with ProcessPoolExecutor(count, choose_context(), _begin, (os.getpid(),)) as pool:
        with ignore_warnings():  # Python's, of forking beside threads: no lock that these could hold is taken there
            pool.submit(int)  # to start the processes now
        yield pool


def _begin(parent: int) -> None:
    begin_helper(parent)
    if hasattr(os, "nice"):
        os.nice(_NICE)
    prepare_drawing()
