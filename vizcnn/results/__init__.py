"""Results: numbers with their provenance that can draw, save and describe themselves. Only here is matplotlib used."""

from vizcnn.results.base import FORMATS, Provenance, Result, check_format
from vizcnn.results.curve import Curve
from vizcnn.results.drawing import shorten
from vizcnn.results.exemplars import Excited, Exemplars, make_exemplar
from vizcnn.results.grid import ImageGrid
from vizcnn.results.heatmap import Heatmap, Mark, Prediction
from vizcnn.results.opening import load_result
from vizcnn.results.panels import Panel, Row, Scene
from vizcnn.results.photos import StoredPhoto
from vizcnn.results.picture import Optimised, Pictures, Scenery
from vizcnn.results.record import Record
from vizcnn.results.scatter import MapGrid, Scatter, Thumbnail, make_thumbnail
from vizcnn.results.table import Table

__all__ = [
    "FORMATS",
    "Curve",
    "Excited",
    "Exemplars",
    "Heatmap",
    "ImageGrid",
    "MapGrid",
    "Mark",
    "Optimised",
    "Panel",
    "Pictures",
    "Prediction",
    "Provenance",
    "Record",
    "Result",
    "Row",
    "Scatter",
    "Scene",
    "Scenery",
    "StoredPhoto",
    "Table",
    "Thumbnail",
    "check_format",
    "load_result",
    "make_exemplar",
    "make_thumbnail",
    "shorten",
]
