"""Records: what a result found as plain dicts, a row of a table each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vizcnn.geometry import Box

Records = list[dict[str, Any]]

_EDGES = tuple(Box.__dataclass_fields__)


def make_even(rows: Iterable[Mapping[str, Any]]) -> Records:
    """The rows with equal keys, None where one has no such value, and with plain values.

    Numbers of numpy become Python's; those that JSON lacks, NaN and infinity, become None."""
    found = [*rows]
    keys = dict.fromkeys(key for row in found for key in row)
    return [{key: _to_plain(row.get(key)) for key in keys} for row in found]


def _to_plain(value: Any) -> str | int | float | bool | None:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None
    if plain is None or isinstance(plain, str | int | float):
        return plain
    raise TypeError(f"a record holds texts, numbers, truth values and None, got a {type(plain).__name__}")


def name_edges(box: Mapping[str, float] | None, name: str = "box") -> dict[str, float | None]:
    """The edges of a box as values of a record: `box_top`, `box_left` and so on; None where there is no box."""
    return {f"{name}_{edge}": box[edge] if box else None for edge in _EDGES}


def flatten(found: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in nested mappings and lists, each under the keys and indices that lead to it: `a.0.b`."""
    if isinstance(found, Mapping):
        pairs: Iterable[tuple[Any, Any]] = found.items()
    elif isinstance(found, list | tuple):
        pairs = enumerate(found)
    else:
        yield prefix, found
        return
    for key, value in pairs:
        yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
