"""Sweeps: the numbers of an image's targets under every window."""

from vizcnn.occlusion.plain import Scored
from vizcnn.occlusion.price import priced
from vizcnn.occlusion.ranks import spearman
from vizcnn.occlusion.sweep import How, Sweep

__all__ = ["How", "Scored", "Sweep", "priced", "spearman"]
