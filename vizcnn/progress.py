"""One progress bar for everything that may take longer than two seconds."""

from __future__ import annotations

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

    total: None where it is not known."""
    return _Bar(
        total=total, desc=label, unit=unit, delay=DELAY, leave=False, disable=not shown, dynamic_ncols=True, miniters=1
    )
