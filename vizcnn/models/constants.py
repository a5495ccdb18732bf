"""Constants on a device: numbers that every run needs, sent there once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def make_constant(values: Sequence[float] | Sequence[Sequence[float]], like: Tensor, device: torch.device) -> Tensor:
    """These numbers as a tensor of the dtype of `like` on a device. It may be shared, so nobody may change it.

    What is kept does not belong to a network, and the numbers themselves are the key: nothing can be out of date."""
    numbers = tuple(tuple(one) if isinstance(one, Sequence) else one for one in values)
    if _get_current_dispatch_mode() is not None:  # it may make something else of them, for its own run only
        return torch.tensor(numbers, dtype=like.dtype, device=device)
    return _keep(numbers, like.dtype, device)


@lru_cache(maxsize=256)
def _keep(numbers: Hashable, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made in that mode can never be a part of a gradient
        return torch.tensor(numbers, dtype=dtype, device=device)
