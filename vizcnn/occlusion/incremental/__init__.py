"""Incremental inference: recompute only what a covering window can change. Exact, where the network can be followed."""

from vizcnn.graph.recording import Graph, Untraceable, record
from vizcnn.occlusion.incremental.cost import (
    compute_executed_share,
    compute_ideal_share,
    count_flops,
    estimate_memory,
)
from vizcnn.occlusion.incremental.engine import Engine, Recomputation
from vizcnn.occlusion.incremental.plan import Plan, group_windows

__all__ = [
    "Engine",
    "Graph",
    "Plan",
    "Recomputation",
    "Untraceable",
    "compute_executed_share",
    "compute_ideal_share",
    "count_flops",
    "estimate_memory",
    "group_windows",
    "record",
]
