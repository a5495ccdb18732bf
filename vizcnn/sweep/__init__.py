"""Sweeps: the numbers of an image's targets under every window."""

from vizcnn.sweep.plain import Scored, default_batch
from vizcnn.sweep.price import priced
from vizcnn.sweep.ranks import spearman
from vizcnn.sweep.sweep import How, Sweep

__all__ = ["How", "Scored", "Sweep", "default_batch", "priced", "spearman"]
