"""Results: numbers with their provenance that can draw, save and describe themselves. Only here is matplotlib used.

Each kind of result loads on first use: a program that makes one kind waits for no other.
"""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
    from vizcnn.results.audit import Audit as Audit
    from vizcnn.results.base import FORMATS as FORMATS
    from vizcnn.results.base import Provenance as Provenance
    from vizcnn.results.base import Result as Result
    from vizcnn.results.base import check_format as check_format
    from vizcnn.results.check import Check as Check
    from vizcnn.results.curve import Curve as Curve
    from vizcnn.results.drawing import prepare_drawing as prepare_drawing
    from vizcnn.results.drawing import shorten as shorten
    from vizcnn.results.excited import Excited as Excited
    from vizcnn.results.excited import make_exemplar as make_exemplar
    from vizcnn.results.exemplars import Exemplars as Exemplars
    from vizcnn.results.explained import Answer as Answer
    from vizcnn.results.explained import Change as Change
    from vizcnn.results.explained import Consensus as Consensus
    from vizcnn.results.explained import Evidence as Evidence
    from vizcnn.results.explained import Tile as Tile
    from vizcnn.results.explained import UnitEffect as UnitEffect
    from vizcnn.results.explanation import Explanation as Explanation
    from vizcnn.results.film import Film as Film
    from vizcnn.results.grid import ImageGrid as ImageGrid
    from vizcnn.results.heatmap import Heatmap as Heatmap
    from vizcnn.results.layer_table import LayerTable as LayerTable
    from vizcnn.results.maps import Mark as Mark
    from vizcnn.results.maps import Prediction as Prediction
    from vizcnn.results.masks import Mask as Mask
    from vizcnn.results.masks import make_mask as make_mask
    from vizcnn.results.opening import load_result as load_result
    from vizcnn.results.panels import Panel as Panel
    from vizcnn.results.panels import Row as Row
    from vizcnn.results.panels import Scene as Scene
    from vizcnn.results.panels import format_number as format_number
    from vizcnn.results.panels import format_score as format_score
    from vizcnn.results.photos import ReducedPhoto as ReducedPhoto
    from vizcnn.results.photos import StoredPhoto as StoredPhoto
    from vizcnn.results.picture import Optimised as Optimised
    from vizcnn.results.picture import Pictures as Pictures
    from vizcnn.results.picture import Scenery as Scenery
    from vizcnn.results.projections import Projections as Projections
    from vizcnn.results.record import Record as Record
    from vizcnn.results.scatter import MapGrid as MapGrid
    from vizcnn.results.scatter import Scatter as Scatter
    from vizcnn.results.scatter import Thumbnail as Thumbnail
    from vizcnn.results.scatter import make_thumbnail as make_thumbnail
    from vizcnn.results.shapes import Stage as Stage
    from vizcnn.results.style import STYLES as STYLES
    from vizcnn.results.style import Style as Style
    from vizcnn.results.style import current_style as current_style
    from vizcnn.results.style import use_style as use_style
    from vizcnn.results.sums import Addend as Addend
    from vizcnn.results.sums import UnitSum as UnitSum
    from vizcnn.results.table import Table as Table
    from vizcnn.results.trust import Trust as Trust
    from vizcnn.results.unit_sums import UnitSums as UnitSums

_HOMES = {
    "Addend": "sums",
    "Answer": "explained",
    "Audit": "audit",
    "Change": "explained",
    "Check": "check",
    "Consensus": "explained",
    "Curve": "curve",
    "Evidence": "explained",
    "Excited": "excited",
    "Exemplars": "exemplars",
    "Explanation": "explanation",
    "FORMATS": "base",
    "Film": "film",
    "Heatmap": "heatmap",
    "ImageGrid": "grid",
    "LayerTable": "layer_table",
    "MapGrid": "scatter",
    "Mark": "maps",
    "Mask": "masks",
    "Optimised": "picture",
    "Panel": "panels",
    "Pictures": "picture",
    "Prediction": "maps",
    "Projections": "projections",
    "Provenance": "base",
    "Record": "record",
    "ReducedPhoto": "photos",
    "Result": "base",
    "Row": "panels",
    "STYLES": "style",
    "Scatter": "scatter",
    "Scene": "panels",
    "Scenery": "picture",
    "Stage": "shapes",
    "StoredPhoto": "photos",
    "Style": "style",
    "Table": "table",
    "Thumbnail": "scatter",
    "Tile": "explained",
    "Trust": "trust",
    "UnitEffect": "explained",
    "UnitSum": "sums",
    "UnitSums": "unit_sums",
    "check_format": "base",
    "current_style": "style",
    "format_number": "panels",
    "format_score": "panels",
    "load_result": "opening",
    "make_exemplar": "excited",
    "make_mask": "masks",
    "make_thumbnail": "scatter",
    "prepare_drawing": "drawing",
    "shorten": "drawing",
    "use_style": "style",
}

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


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
