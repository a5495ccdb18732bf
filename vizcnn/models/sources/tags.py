"""What follows the @ of a name: a file of weights, or a tag."""

from __future__ import annotations

import os
from pathlib import Path

from vizcnn.models.checkpoints import CHECKPOINTS, split_part


def is_file(tag: str) -> bool:
    """Whether what follows the @ is a file of weights."""
    return ends_as_checkpoint(tag) or "/" in tag or os.sep in tag


def ends_as_checkpoint(name: str) -> bool:
    """Whether a name ends as files of weights do, also as `model_best.pth.tar`, which is no archive."""
    return not {*Path(split_part(name)[0]).suffixes[-2:]}.isdisjoint(CHECKPOINTS)
