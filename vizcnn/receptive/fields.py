"""receptive_fields(): what the units of every layer can see."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from vizcnn.errors import ShapeError, VizcnnWarning
from vizcnn.models.model import Model
from vizcnn.receptive.field import ReceptiveField
from vizcnn.receptive.measure import TooLongError, measure_fields
from vizcnn.receptive.trace import trace_fields


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
    layers: only these; by default all. seconds: the time that measuring (below) may take; layers that would need longer
    are left out with a warning. progress: show a bar for work that takes longer than two seconds.

    Exact for any graph: padding, dilation, ceil_mode, adaptive pooling, branches, channel groups, attention. The fields
    are computed by tracing every operation in a dry run on tensors without values (milliseconds), or in a run on noise
    where the network's course depends on values.

    Layers behind an operation that has no rule (sorting, sampling at computed places) are measured instead: one run for
    each row and column of the input, with NaN in it. A measured field is too small where values decide which inputs an
    operation reads. If the network fails on NaN, these layers are left out with a warning.

    Maps with channels last count too. A module that the network calls several times stands for its last call. The
    network is afterwards as it was.

    Raises ShapeError, and whatever the network raises for an input of this size.

        >>> import vizcnn
        >>> field = vizcnn.receptive_fields(vizcnn.load("tiny"))["layer2"]
        >>> field.size, field.stride, field.box(8, 8)
        ((27, 27), (4.0, 4.0), Box(top=19, left=19, bottom=46, right=46))
    """
    size = size or model.input.size
    if min(size) < 1:
        raise ShapeError(f"an input has a positive height and width in px, got {size}")
    found = {name: field for name, field in trace_fields(model, size).items() if layers is None or name in layers}
    missing = [name for name, field in found.items() if field is None]
    if missing:
        found |= _measure_or_warn(model, size, missing, seconds, progress)
    return {name: field for name, field in found.items() if field}


def _measure_or_warn(
    model: Model, size: tuple[int, int], layers: Collection[str], seconds: float, progress: bool
) -> dict[str, ReceptiveField]:
    try:
        return measure_fields(model, size, layers, seconds=seconds, progress=progress)
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
