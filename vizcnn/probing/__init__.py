"""Probing: what a probe is, what it is handed, and what helps to write one.

Names load on first use: what a probe is can be said without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vizcnn.probing.attribution import Map as Map
    from vizcnn.probing.attribution import Maps as Maps
    from vizcnn.probing.attribution import each_map as each_map
    from vizcnn.probing.attribution import find_densest as find_densest
    from vizcnn.probing.attribution import heatmap as heatmap
    from vizcnn.probing.attribution import one_by_one as one_by_one
    from vizcnn.probing.attribution import score as score
    from vizcnn.probing.attribution import warn_of_softmax as warn_of_softmax
    from vizcnn.probing.parsing import parse_names as parse_names
    from vizcnn.probing.probe import Probe as Probe
    from vizcnn.probing.probe import param as param
    from vizcnn.probing.subject import Subject as Subject

_HOMES = {
    "Map": "attribution",
    "Maps": "attribution",
    "Probe": "probe",
    "Subject": "subject",
    "each_map": "attribution",
    "find_densest": "attribution",
    "heatmap": "attribution",
    "one_by_one": "attribution",
    "param": "probe",
    "parse_names": "parsing",
    "score": "attribution",
    "warn_of_softmax": "attribution",
}

__all__ = [
    "Map",
    "Maps",
    "Probe",
    "Subject",
    "each_map",
    "find_densest",
    "heatmap",
    "one_by_one",
    "param",
    "parse_names",
    "score",
    "warn_of_softmax",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"vizcnn.probing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vizcnn.probing' has no attribute {name!r}")
