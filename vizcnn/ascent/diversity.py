"""Diversity: how similar pictures of one target are to the network, so that they can be made to differ."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def measure_similarity(outputs: Mapping[str, tuple[Tensor, ...]], groups: Sequence[Hashable]) -> Tensor:
    """How similar each picture is to the others of its group, (N,), 1 for equal ones: the mean cosine

        mean over j of  <G_i, G_j> / (|G_i| |G_j|)

    of the Gram matrices G of its activations, averaged over layers (Olah et al. 2017). Zero for a picture that is alone
    in its group.

    outputs: each layer's output for each of N pictures, (1, C, H, W) or (1, C). groups: the group of each picture.
    """
    others = torch.tensor([[i != j and a == b for j, b in enumerate(groups)] for i, a in enumerate(groups)])
    weights = others / others.sum(1, keepdim=True).clamp(min=1)  # (N, N)
    per_layer = []
    for parts in outputs.values():
        grams = F.normalize(compute_gram(torch.cat(parts).float()).flatten(1), dim=1)  # (N, C * C)
        per_layer.append(((grams @ grams.T) * weights.to(grams)).sum(1))  # (N,)
    return torch.stack(per_layer).mean(0)


def compute_gram(activations: Tensor) -> Tensor:
    """How channels vary together: G_cd = mean over positions of a_c a_d, (N, C, C) from (N, C, H, W) or (N, C)."""
    flat = activations.flatten(2) if activations.dim() > 2 else activations[:, :, None]  # (N, C, positions)
    return flat @ flat.mT / flat.shape[2]
