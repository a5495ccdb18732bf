"""Incremental inference: recompute only what a covering window can touch. Exact, for networks that can be followed."""

from vizcnn.incremental.calibrate import calibrated
from vizcnn.incremental.engine import Engine, Prepared
from vizcnn.incremental.plan import Plan, batches
from vizcnn.incremental.price import executed_share, ideal_share, memory, per_image
from vizcnn.incremental.tape import Tape, Untraceable, record

__all__ = [
    "Engine",
    "Plan",
    "Prepared",
    "Tape",
    "Untraceable",
    "batches",
    "calibrated",
    "executed_share",
    "ideal_share",
    "memory",
    "per_image",
    "record",
]
