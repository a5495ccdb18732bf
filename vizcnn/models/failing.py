"""Failing: an error of the network's own forward, as one line that says what to do."""

from __future__ import annotations

import torch
from torch import Tensor

from vizcnn.errors import NetworkError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the CPU or on a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def to_network_error(error: Exception, images: Tensor, size: tuple[int, int]) -> NetworkError:
    """What a network raised on images (N, C, H, W), as one line with a remedy; size: the Model's, (H, W)."""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    given = f"images {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')} on {images.device}"
    return NetworkError(
        f"the network itself fails on {given}: {said.rstrip('.')}. {_suggest_remedy(said, images, size)}"
    )


def to_backward_error(error: Exception) -> NetworkError:
    """What a network raised while its gradient was computed, as one line with a remedy."""
    lines = str(error).strip().splitlines() or ["no message"]
    return NetworkError(
        f"the network's backward pass fails: {type(error).__name__}: {lines[0].rstrip('.')}. Use occlusion or rise, "
        "which need no gradient"
    )


def _suggest_remedy(said: str, images: Tensor, size: tuple[int, int]) -> str:
    if "required positional argument" in said:
        return (
            "It needs more than images: say Model(forward=lambda network, images: network(images, ...)) with the rest"
        )
    if "register a hook on a tensor that doesn't require grad" in said:
        return "Put `if x.requires_grad:` before the hook that its forward registers"
    if len(images) > 1:
        return "Does it take several images at once, and of this size?"
    return f"Is the Model's size {size[0]} x {size[1]}, with {images.shape[1]} channels, what it takes?"
