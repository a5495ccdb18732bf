"""Incremental inference: recompute only what a covering window can touch. Exact, for networks that can be followed."""

from vizcnn.graph.recording import Graph, Untraceable, record
from vizcnn.occlusion.incremental.cost import executed_share, ideal_share, memory, per_image
from vizcnn.occlusion.incremental.engine import Engine, Prepared
from vizcnn.occlusion.incremental.plan import Plan, batches

__all__ = [
    "Engine",
    "Graph",
    "Plan",
    "Prepared",
    "Untraceable",
    "batches",
    "executed_share",
    "ideal_share",
    "memory",
    "per_image",
    "record",
]
