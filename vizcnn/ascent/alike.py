"""How alike pictures are to a network: by the way its channels vary together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def likeness(own: Mapping[str, tuple[Tensor, ...]], subjects: Sequence[object]) -> Tensor:
    """How alike each picture is to the others of its subject: the mean cosine between the Gram matrices of their
    activations, averaged over layers (Olah et al. 2017), (N,). Zero for the only picture of a subject.

    own: each layer's output for each picture, (1, C, H, W) or (1, C).
    """
    others = torch.tensor([[i != j and a == b for j, b in enumerate(subjects)] for i, a in enumerate(subjects)])
    weights = others / others.sum(1, keepdim=True).clamp(min=1)  # (N, N)
    layers = [F.normalize(gram(torch.cat(parts).float()).flatten(1), dim=1) for parts in own.values()]  # (N, C * C)
    return torch.stack([((grams @ grams.T) * weights.to(grams)).sum(1) for grams in layers]).mean(0)


def gram(maps: Tensor) -> Tensor:
    """How channels vary together, (N, C, C): mean products over positions of activations (N, C, H, W) or (N, C)."""
    flat = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]  # (N, C, positions)
    return flat @ flat.mT / flat.shape[2]
