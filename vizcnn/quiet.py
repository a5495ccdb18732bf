"""Other libraries' warnings, kept from the person."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_FILTERS = threading.RLock()


def _forget() -> None:
    """A child made by fork has one thread, and nobody else in it will ever release the lock."""
    global _FILTERS
    _FILTERS = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def no_warnings(message: str = "") -> Iterator[None]:
    """Ignore warnings, or those that begin with a message.

    Python's filters belong to the whole process and are put back as they were found, so threads wait for each other
    here: else the later of two would bring back the other's."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield
