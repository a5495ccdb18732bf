"""Expanded tensors: as large as a layer's output, while their numbers mostly repeat along its axes.

Torch's `expand` makes them without copies: an axis along which numbers repeat has stride 0. Whatever is known of every
element of a network (what it sees, where it comes from) is kept so, and stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shape = Sequence[int]


def compact(numbers: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """Without the repetitions of expanded axes, or of those among `dims`: they have length 1."""
    chosen = range(numbers.dim()) if dims is None else {d % numbers.dim() for d in dims}
    repeats = [d in chosen and numbers.stride(d) == 0 for d in range(numbers.dim())]
    return numbers[tuple(slice(0, 1) if repeated else slice(None) for repeated in repeats)]


def reshaped(numbers: Tensor, shape: Shape) -> Tensor:
    """`numbers.reshape(shape)`, in which repeated numbers are written out only where their axis joins another's."""
    factors = _common_factors(numbers.shape, shape)
    if factors is None:
        return numbers.reshape(tuple(shape))
    slim, kept, d = numbers.view(factors), [*shape], 0
    for axis, length in enumerate(shape):
        start, held = d, 1
        while held < length:
            held, d = held * factors[d], d + 1
        if all(slim.stride(e) == 0 or slim.shape[e] == 1 for e in range(start, d)):
            slim, kept[axis] = compact(slim, range(start, d)), 1
    return slim.reshape(kept).expand(tuple(shape))


def _common_factors(before: Shape, after: Shape) -> list[int] | None:
    """Lengths whose products both shapes are, neighbour by neighbour; None where there are none: (4, 6) and (6, 4)."""
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


def overwritten(old: Tensor, whole: Tensor, new: Tensor, part: Tensor) -> Tensor:
    """What is known of the elements of `whole` after those of `part`, which shares its memory, were changed.

    old, new: a number for each element of `whole` before the change, and of `part` after it."""
    places = whole.untyped_storage().nbytes() // whole.element_size()
    numbers, changed = old.new_zeros(places), torch.zeros(places, dtype=torch.bool)
    numbers.as_strided(part.size(), part.stride(), part.storage_offset()).copy_(new)
    changed.as_strided(part.size(), part.stride(), part.storage_offset()).fill_(True)
    now, hit = (m.as_strided(whole.size(), whole.stride(), whole.storage_offset()) for m in (numbers, changed))
    return torch.where(hit, now, old)
