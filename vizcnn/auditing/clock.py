"""A clock that runs while its context is open."""

from __future__ import annotations

import time


class Clock:
    """The seconds for which it was open, all together. No context of a clock may lie in another of the same one."""

    def __init__(self) -> None:
        self.seconds, self._start = 0.0, 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
