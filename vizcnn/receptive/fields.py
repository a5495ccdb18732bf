"""receptive_fields(): what the units of every layer can see."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from vizcnn.errors import ShapeError, VizcnnWarning
from vizcnn.models.model import Model
from vizcnn.receptive.field import ReceptiveField
from vizcnn.receptive.poison import TooLongError, measured
from vizcnn.receptive.trace import traced


def receptive_fields(
    model: Model,
    size: tuple[int, int] | None = None,
    *,
    layers: Collection[str] | None = None,
    seconds: float = 60,
    progress: bool = True,
) -> dict[str, ReceptiveField]:
    """The receptive fields of every layer whose output is a map, by dotted name, in order of execution.

    size: height and width of the input in px; by default the model's own.
    layers: the only ones that are wanted. seconds: what measuring may take (below); layers that would need longer are
    left out with a warning. progress: show a bar for what takes longer than two seconds.

    Exact for any graph: padding, dilation, ceil_mode, adaptive pooling, branches, channel groups, attention. The fields
    are computed by following every operation in a dry run on tensors without values (milliseconds), or, where a network
    looks at numbers while it runs, in a run on noise. Layers behind an operation that has no rule (sorting, sampling at
    computed places) are measured instead: one run for each row and column of the input, with NaN there. That tells what
    passes NaN on, and shows too little where numbers decide what goes where. Where the network refuses NaN these layers
    are left out with a warning.

    Maps that lie channels last count as any others. A module that the network calls several times stands for its last
    call. The network is as it was afterwards.

    Raises ShapeError, and whatever the network raises for an input of this size.
    """
    size = size or model.input.size
    if min(size) < 1:
        raise ShapeError(f"an input has a positive height and width in px, got {size}")
    found = {name: field for name, field in traced(model, size).items() if layers is None or name in layers}
    missing = [name for name, field in found.items() if field is None]
    if missing:
        found |= _measured(model, size, missing, seconds, progress)
    return {name: field for name, field in found.items() if field}


def computed_fields(model: Model, size: tuple[int, int]) -> dict[str, ReceptiveField | None]:
    """The receptive fields as far as they need no measurement, for what can do without: None stands for the others."""
    return traced(model, size)


def _measured(
    model: Model, size: tuple[int, int], layers: Collection[str], seconds: float, progress: bool
) -> dict[str, ReceptiveField]:
    try:
        return measured(model, size, layers, seconds=seconds, progress=progress)
    except TooLongError as error:
        why = (
            f"measuring them would take about {error.seconds:.0f} s; vizcnn.receptive_fields(model, seconds=...) waits"
        )
    except Exception as error:
        why = f"on images with NaN, by which they are measured, it fails ({type(error).__name__}: {error})"
    warnings.warn(
        f"the receptive fields of {', '.join(layers)} are left out: {model.name} does what has no rule, and {why}",
        VizcnnWarning,
        stacklevel=3,
    )
    return {}
