"""Other libraries' warnings, kept from the person."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast


class _Here:
    """What a filter matches messages with: in place of a pattern, so that it can look at the thread too."""

    def __init__(self, message: str) -> None:
        self.pattern, self.thread, self.open = re.compile(message, re.IGNORECASE), threading.get_ident(), True

    def match(self, text: str) -> Any:
        return self.open and threading.get_ident() == self.thread and self.pattern.match(text)


@contextmanager
def no_warnings(message: str = "") -> Iterator[None]:
    """Ignore this thread's warnings, or those that begin with a message.

    Python's filters belong to the whole process, and `catch_warnings` puts them back as it found them: of two threads
    the later would bring back the other's. So one filter, which no other thread's warnings match, comes and goes."""
    here = _Here(message)
    ours = ("ignore", here, Warning, None, 0)
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, ours)
    try:
        yield
    finally:
        here.open = False  # should somebody have made a copy of the list
        with suppress(ValueError):
            filters.remove(ours)
