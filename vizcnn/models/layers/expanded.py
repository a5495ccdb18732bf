"""Expanded tensors: as large as a layer's output, with values that repeat along most axes, in little memory.

Torch's `expand` makes them without copies: an axis along which values repeat has stride 0. What is known of every
element of a layer (what it sees, where it comes from) is stored like this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shape = Sequence[int]


def compact(values: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The tensor without repetitions: expanded axes, or those among `dims`, have length 1."""
    chosen = range(values.dim()) if dims is None else {d % values.dim() for d in dims}
    repeats = [d in chosen and values.stride(d) == 0 for d in range(values.dim())]
    return values[tuple(slice(0, 1) if repeated else slice(None) for repeated in repeats)]


def reshape(values: Tensor, shape: Shape) -> Tensor:
    """`values.reshape(shape)`, where only axes that are joined with others are written out."""
    factors = _find_common_factors(values.shape, shape)
    if factors is None:
        return values.reshape(tuple(shape))
    slim, kept, d = values.view(factors), [*shape], 0
    for axis, length in enumerate(shape):
        start, held = d, 1
        while held < length:
            held, d = held * factors[d], d + 1
        if all(slim.stride(e) == 0 or slim.shape[e] == 1 for e in range(start, d)):
            slim, kept[axis] = compact(slim, range(start, d)), 1
    return slim.reshape(kept).expand(tuple(shape))


def _find_common_factors(before: Shape, after: Shape) -> list[int] | None:
    """Lengths from which both shapes come by multiplying neighbours; None if there are none: (4, 6) and (6, 4)."""
    left, right, factors = [*before], [*after], list[int]()
    while left and right:
        a, b = left.pop(), right.pop()
        least = min(a, b)
        if least == 0 or max(a, b) % least:
            return None
        factors.append(least)
        left += [a // least] * (a > least)
        right += [b // least] * (b > least)
    return [*left, *right, *reversed(factors)]  # what is left has length 1


def overwrite(old: Tensor, whole: Tensor, new: Tensor, part: Tensor) -> Tensor:
    """The values that belong to the elements of `whole`, after those of `part`, which shares its memory, have changed.

    old: a value for each element of `whole` before the change. new: for each element of `part` after it."""
    places = whole.untyped_storage().nbytes() // whole.element_size()
    values, changed = old.new_zeros(places), torch.zeros(places, dtype=torch.bool)
    values.as_strided(part.size(), part.stride(), part.storage_offset()).copy_(new)
    changed.as_strided(part.size(), part.stride(), part.storage_offset()).fill_(True)
    now, hit = (m.as_strided(whole.size(), whole.stride(), whole.storage_offset()) for m in (values, changed))
    return torch.where(hit, now, old)
