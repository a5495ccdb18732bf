"""Digest of a network's weights, which says whether two networks are the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PIECE = 2**24  # bytes digested at a time
_SMALL = 2**20  # bytes; smaller tensors of a device are brought to the processor together
_TOGETHER = 2**26  # bytes of these at a time

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def digest_tensors(named: Sequence[tuple[str, Tensor]]) -> str:
    """Digest over tensors with their names, shapes and types, in the order of the names."""
    ordered = sorted(named, key=lambda one: one[0])
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pieces = pool.map(_digest, (piece for data in _bring_near([value for _, value in ordered]) for piece in data))
        names = [f"{name} {value.dtype} {tuple(value.shape)};".encode() for name, value in ordered]
        return hashlib.sha256(b"".join([*names, *pieces])).hexdigest()


def _bring_near(values: Sequence[Tensor]) -> Iterator[list[Bytes]]:
    """The bytes of each tensor, in parts that threads can digest at the same time.

    A program waits for each copy from a device, so small tensors come together."""
    waiting: list[Tensor] = []
    for value in values:
        size = value.numel() * value.element_size()
        small = not value.is_cpu and size < _SMALL
        if waiting and (not small or value.device != waiting[0].device or _count_bytes(waiting) + size > _TOGETHER):
            yield from _bring_together(waiting)
            waiting = []
        if small:
            waiting.append(value)
        else:
            yield _split(_view_bytes(value).cpu())
    yield from _bring_together(waiting)


def _bring_together(values: Sequence[Tensor]) -> Iterator[list[Bytes]]:
    """The bytes of small tensors of one device, in one copy."""
    if not values:
        return
    parts = [_view_bytes(value) for value in values]
    for part in torch.cat(parts).cpu().split([len(part) for part in parts]):
        yield _split(part)


def _count_bytes(values: Sequence[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in values)


def _view_bytes(value: Tensor) -> Tensor:
    plain = value.detach().contiguous().flatten()
    return plain.view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8, device=value.device)


def _split(data: Tensor) -> list[Bytes]:
    flat: Bytes = data.numpy()
    return [flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE)]


def _digest(data: Bytes) -> bytes:
    return hashlib.sha256(data.data).digest()
