"""What belongs to the whole process and is handed back as it was: standard output, filters of warnings, what torch
writes to the environment, where imports look; a lock for what only one thread may use; and how processes beside this
one start and end."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, cast

from vizcnn.errors import VizcnnWarning, to_one_line

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


@contextmanager
def import_from(folder: Path) -> Iterator[None]:
    """While the context is open, imports find the modules of this folder too, as for a script that is run there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def spare_imports() -> Iterator[None]:
    """While the context is open, Python's garbage collector rests, and afterwards it passes over what was imported, as
    that stays: going through it again and again takes a fifth of the time of importing torch. This is for the start of
    a program: where torch is imported already, nothing happens."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    with rest_collector():
        yield
        gc.freeze()


@contextmanager
def rest_collector() -> Iterator[None]:
    """While the context is open, Python's garbage collector rests. For what makes thousands of objects that end by
    themselves, and would set it going through all that a program has imported."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
        self.texts: list[str] = []

    def match(self, text: str) -> Any:
        found = self.open and threading.get_ident() == self.thread and self.pattern.match(text)
        if found:
            self.texts.append(text)
        return found


@contextmanager
def ignore_warnings(message: str = "") -> Iterator[list[str]]:
    """Ignore this thread's warnings, or those that begin with a message. Gives the list of those that were ignored.

    Python's filters belong to the whole process, and `catch_warnings` puts them back as it found them: of two threads
    the later would bring back the other's. So one filter, which no other thread's warnings match, comes and goes."""
    here = _ThreadFilter(message)
    ours = ("ignore", here, Warning, None, 0)
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, ours)
    try:
        yield here.texts
    finally:
        here.open = False  # should somebody have made a copy of the list
        with suppress(ValueError):
            filters.remove(ours)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """While the context is open, vizcnn's own warnings are not shown: the list that it gives gets their texts, each in
    one line. Those of others are shown as ever."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", VizcnnWarning)
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, VizcnnWarning):
                texts.append(to_one_line(message))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = note
        yield texts


def choose_context() -> Any:
    """How to start processes: by forking, which is fast, unless that is unsafe here or the person chose otherwise."""
    import multiprocessing

    forks = sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) != "spawn"
    return multiprocessing.get_context("fork" if forks else None)


def begin_helper(parent: int) -> None:
    """What a process that works for another, with the number `parent`, does first: it leaves Ctrl-C to that one, and
    ends when that one has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
