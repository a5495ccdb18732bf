"""Diversity: how similar pictures of one target are to the network, so that they can be made to differ."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vizcnn.models.constants import make_constant


def measure_similarity(outputs: Mapping[str, tuple[Tensor, ...]], groups: Sequence[Hashable]) -> Tensor:
    """How similar each picture is to the others of its group, (N,), 1 for equal ones: the mean cosine

        mean over j of  <G_i, G_j> / (|G_i| |G_j|)

    of the Gram matrices G of its activations, averaged over layers (Olah et al. 2017). Zero for a picture that is alone
    in its group.

    outputs: each layer's output for each of N pictures, (1, C, H, W) or (1, C). groups: the group of each picture.
    """
    others = [[float(i != j and a == b) for j, b in enumerate(groups)] for i, a in enumerate(groups)]
    shares = [[one / max(1.0, sum(row)) for one in row] for row in others]  # (N, N)
    per_layer = []
    for parts in outputs.values():
        grams = F.normalize(compute_gram(torch.cat(parts).float()).flatten(1), dim=1)  # (N, C * C)
        weights = make_constant(shares, grams, grams.device)
        per_layer.append(((grams @ grams.T) * weights).sum(1))  # (N,)
    return torch.stack(per_layer).mean(0)


def compute_gram(activations: Tensor) -> Tensor:
    """How channels vary together: G_cd = mean over positions of a_c a_d, (N, C, C) from (N, C, H, W) or (N, C)."""
    flat = activations.flatten(2) if activations.dim() > 2 else activations[:, :, None]  # (N, C, positions)
    return flat @ flat.mT / flat.shape[2]
