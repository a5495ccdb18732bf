"""Input tensors: images that a person hands over ready for the network, values in [0, 1] and not yet normalised."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from vizcnn.errors import ShapeError
from vizcnn.inputs.photo import Photo

UNNAMED = "tensor"
"""What messages call an image that was handed over as numbers."""


def check_unit_range(values: Tensor) -> None:
    """Raise ShapeError unless every value of an input tensor lies in [0, 1]; NaN does not."""
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):
        raise ShapeError(
            f"an input tensor holds values in [0, 1], got {values.min():g}..{values.max():g}. "
            "Pass images before normalisation: the model does it"
        )


def to_photo(inputs: Tensor) -> Photo:
    """An input (C, H, W) in [0, 1] as a photograph."""
    return Photo(np.ascontiguousarray(inputs.permute(1, 2, 0).float().cpu().numpy()), UNNAMED)
