"""Occlusion: the scores of an image's targets under every window."""

from vizcnn.occlusion.collect import collect
from vizcnn.occlusion.cost import estimate_cost
from vizcnn.occlusion.plain import Case
from vizcnn.occlusion.ranks import spearman
from vizcnn.occlusion.sweep import Sweep

__all__ = ["Case", "Sweep", "collect", "estimate_cost", "spearman"]


def __dir__() -> list[str]:
    return [*__all__]
