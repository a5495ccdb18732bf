"""What belongs to the whole process and is handed back as it was: standard output, and what torch writes to the
environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress

_STDOUT, _STDERR = 1, 2
_TORCHS_OWN = ("TORCHINDUCTOR_CACHE_DIR",)


@contextmanager
def stdout_aside(*, shown: bool) -> Iterator[None]:
    """What is printed while the context is open goes to standard error if `shown`, and nowhere otherwise.

    Standard output is then free for the answer alone, whatever Python code, compiled code or a child process prints:
    torch, for one, announces downloads there.
    """
    with ExitStack() as undo:
        nowhere = undo.enter_context(open(os.devnull, "w"))
        shown = shown and sys.__stderr__ is not None  # it may be closed
        undo.enter_context(_redirected(_STDERR if shown else nowhere.fileno()))
        undo.enter_context(redirect_stdout(sys.stderr if shown else nowhere))
        yield


@contextmanager
def _redirected(to: int) -> Iterator[None]:
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
def environment_kept() -> Iterator[None]:
    """Afterwards the environment has no variable that torch has set meanwhile: some of its functions, on their first
    use, import its compiler, which sets one, and programs started later would inherit it."""
    absent = [name for name in _TORCHS_OWN if name not in os.environ]
    try:
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)
