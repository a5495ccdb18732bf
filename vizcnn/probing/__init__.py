"""Probing: what a probe is, what it is handed, and what helps to write one.

Names load on first use: what a probe is can be said without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vizcnn.probing.attribution import Map as Map
    from vizcnn.probing.attribution import Maps as Maps
    from vizcnn.probing.attribution import densest as densest
    from vizcnn.probing.attribution import each_map as each_map
    from vizcnn.probing.attribution import heatmap as heatmap
    from vizcnn.probing.attribution import one_by_one as one_by_one
    from vizcnn.probing.attribution import score as score
    from vizcnn.probing.attribution import warn_of_softmax as warn_of_softmax
    from vizcnn.probing.parsing import names as names
    from vizcnn.probing.probe import Price as Price
    from vizcnn.probing.probe import Probe as Probe
    from vizcnn.probing.probe import param as param
    from vizcnn.probing.subject import Subject as Subject

_HOMES = {
    "Map": "attribution",
    "Maps": "attribution",
    "Price": "probe",
    "Probe": "probe",
    "Subject": "subject",
    "densest": "attribution",
    "each_map": "attribution",
    "heatmap": "attribution",
    "names": "parsing",
    "one_by_one": "attribution",
    "param": "probe",
    "score": "attribution",
    "warn_of_softmax": "attribution",
}

__all__ = [
    "Map",
    "Maps",
    "Price",
    "Probe",
    "Subject",
    "densest",
    "each_map",
    "heatmap",
    "names",
    "one_by_one",
    "param",
    "score",
    "warn_of_softmax",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"vizcnn.probing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vizcnn.probing' has no attribute {name!r}")
