"""receptive_fields(): what the units of every layer can see."""

from __future__ import annotations

from vizcnn.errors import ShapeError
from vizcnn.model import Model
from vizcnn.receptive.field import ReceptiveField
from vizcnn.receptive.poison import measured
from vizcnn.receptive.trace import traced


def receptive_fields(model: Model, size: tuple[int, int] | None = None) -> dict[str, ReceptiveField]:
    """The receptive fields of every layer whose output is a map (N, C, h, w), by dotted name, in order of execution.

    size: height and width of the input in px; by default the model's own.

    Exact for any graph: padding, dilation, ceil_mode, adaptive pooling, branches, channel groups, attention. The fields
    are computed by following every operation in a dry run on tensors without values (milliseconds). A network with an
    operation that has no rule, or that looks at numbers while it runs, is measured instead: one run for each row and
    column of the input, with NaN there (minutes for a large network).
    A module that the network calls several times stands for its last call. Layers whose last two axes are not the
    image's (channels last) are left out. The network is as it was afterwards.

    Raises ShapeError, and whatever the network raises for an input of this size.
    """
    size = size or model.input.size
    if min(size) < 1:
        raise ShapeError(f"an input has a positive height and width in px, got {size}")
    try:
        return traced(model, size)
    except Exception:  # whatever stops a dry run; errors of the network itself come again when it is measured
        return measured(model, size)
