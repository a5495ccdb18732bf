"""Scans: one pass over a data set that finds what excites each channel of a network, exactly."""

from vizcnn.scanning.best import (
    AnyIndex,
    BestImage,
    Maps,
    MemoryIndex,
    find_best,
    find_channel,
    name_layer,
    require_unit,
)
from vizcnn.scanning.cluster import open_cluster
from vizcnn.scanning.crops import crop_best, refuse_other_network
from vizcnn.scanning.features import Features, compute_features
from vizcnn.scanning.index import Index, merge_indexes
from vizcnn.scanning.layer_selection import OUTPUT_NAME, select_layers
from vizcnn.scanning.maps import read_maps, refuse_other_maps, sees_most
from vizcnn.scanning.observe import Finding
from vizcnn.scanning.run import MAX_TOP, Part, scan, scan_in_memory
from vizcnn.scanning.study import Answers, LayerStudy, Study
from vizcnn.scanning.tally import Tally, merge_tallies

__all__ = [
    "MAX_TOP",
    "OUTPUT_NAME",
    "Answers",
    "AnyIndex",
    "BestImage",
    "Features",
    "Finding",
    "Index",
    "LayerStudy",
    "Maps",
    "MemoryIndex",
    "Part",
    "Study",
    "Tally",
    "compute_features",
    "crop_best",
    "find_best",
    "find_channel",
    "merge_indexes",
    "merge_tallies",
    "name_layer",
    "open_cluster",
    "read_maps",
    "refuse_other_maps",
    "refuse_other_network",
    "require_unit",
    "scan",
    "scan_in_memory",
    "sees_most",
    "select_layers",
]


def __dir__() -> list[str]:
    return [*__all__]
