"""What belongs to the whole process and is handed back as it was: standard output, filters of warnings, what torch
writes to the environment; and a lock for what only one thread may use."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Any, cast

_STDOUT, _STDERR = 1, 2
_TORCHS_OWN = ("TORCHINDUCTOR_CACHE_DIR",)


@contextmanager
def set_stdout_aside(*, shown: bool) -> Iterator[None]:
    """What is printed while the context is open goes to standard error if `shown`, and nowhere otherwise.

    Standard output is then free for the answer alone, whatever Python code, compiled code or a child process prints:
    torch, for one, announces downloads there.
    """
    with ExitStack() as undo:
        nowhere = undo.enter_context(open(os.devnull, "w"))
        shown = shown and sys.__stderr__ is not None  # it may be closed
        undo.enter_context(_redirect_stdout(_STDERR if shown else nowhere.fileno()))
        undo.enter_context(redirect_stdout(sys.stderr if shown else nowhere))
        yield


@contextmanager
def _redirect_stdout(to: int) -> Iterator[None]:
    """While the context is open, the file descriptor of standard output leads to another one's place."""
    _flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # it is closed: nothing can be printed there
        yield
        return
    try:
        os.dup2(to, _STDOUT)
        yield
    finally:
        _flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _flush() -> None:
    """Write out what Python and C have kept back until now: it belongs to where the descriptor leads at present."""
    with suppress(AttributeError, OSError, ValueError):  # it may be missing, its reader gone, or closed
        sys.stdout.flush()
    with suppress(Exception):  # not every system has C's library under this name
        import ctypes

        ctypes.CDLL(None).fflush(None)


@contextmanager
def keep_environment() -> Iterator[None]:
    """Afterwards the environment has no variable that torch has set meanwhile: some of its functions, on their first
    use, import its compiler, which sets one, and programs started later would inherit it."""
    absent = [name for name in _TORCHS_OWN if name not in os.environ]
    try:
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)


class Turns:
    """A re-entrant lock for what belongs to the whole process; a child made by fork has it anew."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._lock:
            yield


class _ThreadFilter:
    """What a filter matches messages with: in place of a pattern, so that it can look at the thread too."""

    def __init__(self, message: str) -> None:
        self.pattern, self.thread, self.open = re.compile(message, re.IGNORECASE), threading.get_ident(), True

    def match(self, text: str) -> Any:
        return self.open and threading.get_ident() == self.thread and self.pattern.match(text)


@contextmanager
def ignore_warnings(message: str = "") -> Iterator[None]:
    """Ignore this thread's warnings, or those that begin with a message.

    Python's filters belong to the whole process, and `catch_warnings` puts them back as it found them: of two threads
    the later would bring back the other's. So one filter, which no other thread's warnings match, comes and goes."""
    here = _ThreadFilter(message)
    ours = ("ignore", here, Warning, None, 0)
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, ours)
    try:
        yield
    finally:
        here.open = False  # should somebody have made a copy of the list
        with suppress(ValueError):
            filters.remove(ours)
