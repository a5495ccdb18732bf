"""What follows the @ of a name: a file of weights, or a tag."""

from __future__ import annotations

import os
from pathlib import Path

from vizcnn.models.checkpoints import CHECKPOINTS, split_part


def is_file(tag: str) -> bool:
    """Whether what follows the @ is a file of weights."""
    return Path(split_part(tag)[0]).suffix in CHECKPOINTS or "/" in tag or os.sep in tag
