"""Probing: what a probe is, what it is handed, and what helps to write one.

Names load on first use: what a probe is can be said without torch.
"""

# What is not public has names with _, for those who complete `vizcnn.probing.` by reading this file.
import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from vizcnn.models.batches import Answers as Answers
    from vizcnn.models.batches import answer_each as answer_each
    from vizcnn.probing.attribution import Map as Map
    from vizcnn.probing.attribution import answer_pairs as answer_pairs
    from vizcnn.probing.attribution import each_map as each_map
    from vizcnn.probing.attribution import find_densest as find_densest
    from vizcnn.probing.attribution import find_peak as find_peak
    from vizcnn.probing.attribution import heatmap as heatmap
    from vizcnn.probing.attribution import score as score
    from vizcnn.probing.attribution import warn_of_softmax as warn_of_softmax
    from vizcnn.probing.parsing import parse_names as parse_names
    from vizcnn.probing.probe import Probe as Probe
    from vizcnn.probing.probe import param as param
    from vizcnn.probing.rebuilding import probe_from as probe_from
    from vizcnn.probing.subject import Subject as Subject

_HOMES = {
    "Answers": "models.batches",
    "Map": "probing.attribution",
    "Probe": "probing.probe",
    "Subject": "probing.subject",
    "answer_each": "models.batches",
    "answer_pairs": "probing.attribution",
    "each_map": "probing.attribution",
    "find_densest": "probing.attribution",
    "find_peak": "probing.attribution",
    "heatmap": "probing.attribution",
    "param": "probing.probe",
    "parse_names": "probing.parsing",
    "probe_from": "probing.rebuilding",
    "score": "probing.attribution",
    "warn_of_softmax": "probing.attribution",
}

__all__ = [
    "Answers",
    "Map",
    "Probe",
    "Subject",
    "answer_each",
    "answer_pairs",
    "each_map",
    "find_densest",
    "find_peak",
    "heatmap",
    "param",
    "parse_names",
    "probe_from",
    "score",
    "warn_of_softmax",
]


def __getattr__(name: str) -> _typing.Any:
    if name in _HOMES:
        return getattr(_import_module(f"vizcnn.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vizcnn.probing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
