"""A third party's attribution, complete: how its maps are computed, and nothing else."""

import torch

from vizcnn import Heatmap, Probe, param
from vizcnn.probing import Map, each_map, find_densest, heatmap, score


class Taylor(Probe[Heatmap]):
    """By how much would the answer change, to first order, if this pixel were of one grey?

    A pixel's number is the sum over its colours of (value - grey) times the target's slope there."""

    paper = "Taylor 1715"
    grey: float = param(0.5, "The grey.", min=0, max=1)

    def compute(self, subject):
        def make_maps(images, targets):
            scores = score(subject, images.requires_grad_(), targets)  # (B,)
            (slopes,) = torch.autograd.grad(scores.sum(), images)  # (B, C, H, W)
            values = ((images.detach() - self.grey) * slopes).sum(1)  # (B, H, W)
            return [Map(one, find_densest(one), "grey would change most") for one in values]

        maps = each_map(subject, make_maps, label="taylor")
        return heatmap(subject, maps, meaning=lambda quantity: f"{quantity} lost in grey", signed=True)
