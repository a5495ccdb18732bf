"""Scans: one pass over a data set that finds what excites each channel of a network, exactly."""

from vizcnn.scanning.cluster import cluster
from vizcnn.scanning.crops import crops, refuse_other_network
from vizcnn.scanning.features import Features, features_in
from vizcnn.scanning.index import Index, gathered
from vizcnn.scanning.known import Best, Fresh, Known, best, channel_of, layer_of, unit_of
from vizcnn.scanning.run import MOST, Part, found_in, scan
from vizcnn.scanning.survey import OUTPUT_NAME, Finding, surveyed
from vizcnn.scanning.tally import Tally, merged

__all__ = [
    "MOST",
    "OUTPUT_NAME",
    "Best",
    "Features",
    "Finding",
    "Fresh",
    "Index",
    "Known",
    "Part",
    "Tally",
    "best",
    "channel_of",
    "cluster",
    "crops",
    "features_in",
    "found_in",
    "gathered",
    "layer_of",
    "merged",
    "refuse_other_network",
    "scan",
    "surveyed",
    "unit_of",
]
