"""Results: numbers with their provenance that can draw, save and describe themselves. Only here is matplotlib used."""

from vizcnn.results.base import FORMATS, Provenance, Result, checked_format
from vizcnn.results.heatmap import Heatmap, Mark, Prediction

__all__ = ["FORMATS", "Heatmap", "Mark", "Prediction", "Provenance", "Result", "checked_format"]
