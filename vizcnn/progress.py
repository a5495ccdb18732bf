"""One progress bar for everything that may take longer than two seconds."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

DELAY = 2.0
"""Seconds before a bar appears."""


def bar(total: int, label: str, unit: str, *, shown: bool = True) -> Any:
    """A tqdm bar on stderr: use it as a context and call `update(n)`. It vanishes when done."""
    return tqdm(total=total, desc=label, unit=unit, delay=DELAY, leave=False, disable=not shown, dynamic_ncols=True)
