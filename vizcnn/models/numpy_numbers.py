"""Numbers of numpy beside the weights of a checkpoint, such as `best_accuracy`: read without numpy's own unpickling.

torch reads a pickle as weights only and refuses every class that it does not know; a number of numpy comes as two of
them. Both are stood in for by what cannot do anything but make a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vizcnn.process import Turns

_TURNS = Turns()  # what torch takes for safe belongs to the whole process
_KINDS = "biufc"  # truth values, whole numbers, and numbers with a point


class _NumpyKind:
    """Stands for a `numpy.dtype`, of which it knows the code, such as `f8`."""

    def __init__(self, code: str, *_flags: Any) -> None:
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        """The second part of a dtype's state is the byte order; the others say nothing about plain numbers."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else ""
        if order in (">", b">"):
            self.code = f">{self.code}"


def _read_number(kind: _NumpyKind, data: bytes | None = None) -> Any:
    """Stands for `numpy.core.multiarray.scalar`: the number that the bytes are."""
    dtype = np.dtype(kind.code)
    if dtype.kind not in _KINDS or data is None or len(data) != dtype.itemsize:
        raise ValueError(f"a number of the kind {kind.code!r} cannot be read safely")
    return np.frombuffer(data, dtype)[0]


@contextmanager
def allow_numpy_numbers() -> Iterator[None]:
    """While the context is open, torch also reads numbers of numpy as weights only."""
    stand_ins: list[Any] = [
        (_NumpyKind, "numpy.dtype"),
        (_read_number, "numpy.core.multiarray.scalar"),
        (_read_number, "numpy._core.multiarray.scalar"),
    ]
    with _TURNS.take(), torch.serialization.safe_globals(stand_ins):
        yield
