"""Evaluation: how far a map can be believed. It knows models, tensors and maps, and no probe.

`evaluate` judges anyone's maps of one image. `delete` and `insert` show a score while the image is covered, or shown,
in a map's order; `randomize` shows what becomes of a map while the network forgets what it has learned. The other names
are what they are made of.
"""

from vizcnn.evaluation.contrast import choose_contrast
from vizcnn.evaluation.coverings import Coverings, cover_image
from vizcnn.evaluation.curves import delete, insert
from vizcnn.evaluation.evaluating import evaluate
from vizcnn.evaluation.judging import judge_map
from vizcnn.evaluation.need import measure_need
from vizcnn.evaluation.nulls import make_nulls
from vizcnn.evaluation.randomizing import randomize

__all__ = [
    "Coverings",
    "choose_contrast",
    "cover_image",
    "delete",
    "evaluate",
    "insert",
    "judge_map",
    "make_nulls",
    "measure_need",
    "randomize",
]


def __dir__() -> list[str]:
    return [*__all__]
