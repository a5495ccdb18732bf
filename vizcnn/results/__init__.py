"""Results: numbers with their provenance that can draw, save and describe themselves. Only here is matplotlib used."""

from vizcnn.results.audit import Audit
from vizcnn.results.base import FORMATS, Provenance, Result, check_format
from vizcnn.results.check import Check
from vizcnn.results.curve import Curve
from vizcnn.results.drawing import prepare_drawing, shorten
from vizcnn.results.excited import Excited, make_exemplar
from vizcnn.results.exemplars import Exemplars
from vizcnn.results.explained import Answer, Change, Consensus, Evidence, Tile, UnitEffect
from vizcnn.results.explanation import Explanation
from vizcnn.results.film import Film
from vizcnn.results.grid import ImageGrid
from vizcnn.results.heatmap import Heatmap
from vizcnn.results.layer_table import LayerTable
from vizcnn.results.maps import Mark, Prediction
from vizcnn.results.masks import Mask, make_mask
from vizcnn.results.opening import load_result
from vizcnn.results.panels import Panel, Row, Scene, format_number, format_score
from vizcnn.results.photos import ReducedPhoto, StoredPhoto
from vizcnn.results.picture import Optimised, Pictures, Scenery
from vizcnn.results.projections import Projections
from vizcnn.results.record import Record
from vizcnn.results.scatter import MapGrid, Scatter, Thumbnail, make_thumbnail
from vizcnn.results.shapes import Stage
from vizcnn.results.style import STYLES, Style, current_style, use_style
from vizcnn.results.sums import Addend, UnitSum
from vizcnn.results.table import Table
from vizcnn.results.trust import Trust
from vizcnn.results.unit_sums import UnitSums

__all__ = [
    "FORMATS",
    "STYLES",
    "Addend",
    "Answer",
    "Audit",
    "Change",
    "Check",
    "Consensus",
    "Curve",
    "Evidence",
    "Excited",
    "Exemplars",
    "Explanation",
    "Film",
    "Heatmap",
    "ImageGrid",
    "LayerTable",
    "MapGrid",
    "Mark",
    "Mask",
    "Optimised",
    "Panel",
    "Pictures",
    "Prediction",
    "Projections",
    "Provenance",
    "Record",
    "ReducedPhoto",
    "Result",
    "Row",
    "Scatter",
    "Scene",
    "Scenery",
    "Stage",
    "StoredPhoto",
    "Style",
    "Table",
    "Thumbnail",
    "Tile",
    "Trust",
    "UnitEffect",
    "UnitSum",
    "UnitSums",
    "check_format",
    "current_style",
    "format_number",
    "format_score",
    "load_result",
    "make_exemplar",
    "make_mask",
    "make_thumbnail",
    "prepare_drawing",
    "shorten",
    "use_style",
]


def __dir__() -> list[str]:
    return [*__all__]
