"""One progress bar for everything that may take longer than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

DELAY = 2.0
"""Seconds before a bar appears."""


class _Bar(tqdm):  # type: ignore[type-arg]
    """Without the thread that tqdm starts for its first bar and never ends; it is for bars that guess how often to draw
    themselves, and ours look at the clock at each update."""

    monitor_interval = 0


def bar(total: int | None, label: str, unit: str, *, shown: bool = True) -> Any:
    """A tqdm bar on stderr: use it as a context and call `update(n)`. It vanishes when done.

    Inside a part of a `Whole` it is none of its own, and moves that part of the whole bar.
    total: None where it is not known."""
    if whole := _WHOLE.get():
        return _Inner(whole, total)
    if listener := _LISTENER.get():
        return _Told(listener, label, total)
    return _Bar(
        total=total, desc=label, unit=unit, delay=DELAY, leave=False, disable=not shown, dynamic_ncols=True, miniters=1
    )


@contextmanager
def tell(listener: Callable[[str, float | None], None]) -> Iterator[None]:
    """While the context is open, no bar is drawn: the listener is told its label and the share that is done, at once
    and again and again; None where the total is not known. For whoever shows progress elsewhere than on stderr."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def say(text: str) -> None:
    """Say something on stderr, where a bar may stand."""
    _Bar.write(f"vizcnn: {text}", file=sys.stderr)


class Whole:
    """One bar over work of several parts, for which the price is known beforehand.

    total: of all parts, in runs of a network. name: of the network. As soon as the first part is done, the number of
    runs and the seconds that they will take are said on stderr, where these are more than the two seconds of a bar. Not
    sooner: a part may begin with what is much quicker than its other runs."""

    def __init__(self, total: float, label: str, name: str, *, shown: bool = True) -> None:
        self._bar = bar(round(total), label, "run", shown=shown)
        self._total, self._name, self._shown = total, name, shown
        self._start, self._done, self._end = time.monotonic(), 0.0, 0.0

    def __enter__(self) -> Whole:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @contextmanager
    def part(self, runs: float) -> Iterator[None]:
        """While the context is open, bars move the whole one, by so many runs together."""
        before, self._end = self._done, self._done + runs
        token = _WHOLE.set(self)
        try:
            yield
        finally:
            _WHOLE.reset(token)
        self._move(before + runs)
        if not before and runs:
            self._tell_cost()

    def advance(self, share: float, runs: float) -> None:
        """Move by a share of so many runs, at most to the end of the part."""
        self._move(min(self._end, self._done + share * runs))

    @property
    def left(self) -> float:
        """How many runs of the part are left."""
        return self._end - self._done

    def _move(self, to: float) -> None:
        before, self._done = round(self._done), to
        self._bar.update(round(to) - before)

    def _tell_cost(self) -> None:
        seconds = (time.monotonic() - self._start) * self._total / self._done
        if self._shown and seconds > DELAY:
            say(f"about {self._total:,.0f} runs of {self._name}, {seconds:.0f} s")


_WHOLE: ContextVar[Whole | None] = ContextVar("whole", default=None)


class _Inner(_Bar):
    """A bar that is not drawn and moves a part of a whole one."""

    def __init__(self, whole: Whole, total: int | None) -> None:
        super().__init__(total=total, disable=True)
        self._whole, self._steps, self._runs = whole, total, whole.left

    def update(self, n: float | None = 1) -> None:
        if self._steps:
            self._whole.advance((n or 0) / self._steps, self._runs)


_LISTENER: ContextVar[Callable[[str, float | None], None] | None] = ContextVar("listener", default=None)


class _Told(_Bar):
    """A bar that is not drawn and tells a listener."""

    def __init__(self, listener: Callable[[str, float | None], None], label: str, total: int | None) -> None:
        super().__init__(total=total, disable=True)
        self._listener, self._label, self._steps, self._done = listener, label, total, 0.0
        self.update(0)

    def update(self, n: float | None = 1) -> None:
        self._done += n or 0
        self._listener(self._label, min(1.0, self._done / self._steps) if self._steps else None)
