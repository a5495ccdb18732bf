"""Preparation: from what a person hands a probe to its Subject, with everything checked on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from vizcnn.errors import ParameterError, ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.datasets import dataset
from vizcnn.inputs.images import Photo, expand_sources, open_photo
from vizcnn.inputs.tensors import check_unit_range, to_photo
from vizcnn.models.borrowing import add_context, borrow
from vizcnn.models.determinism import check_without_images, run_clean
from vizcnn.models.model import Model
from vizcnn.models.targets import Target, parse_targets
from vizcnn.probing.subject import Question, Subject


class Asking(Protocol):
    """The members of a `vizcnn.Probe` that say what it wants to look at. A probe's call stands on this module, so this
    module cannot name the class itself."""

    needs_images: ClassVar[bool]
    streams: ClassVar[bool]
    needs_target: ClassVar[bool]

    def default_targets(self, model: Model) -> Sequence[Any] | None: ...

    def input_size(self, model: Model) -> tuple[int, int]: ...

    def labels_from(self) -> Any: ...


@contextmanager
def prepare(
    probe: Asking, question: Question, model: Model, images: Any, wanted: Any, *, seed: int, progress: bool
) -> Iterator[Subject]:
    """Prepare a probe's subject; afterwards the network and the random state are as they were.

    Errors that pass through say which probe met them, on which model and input.
    """
    if not isinstance(model, Model):
        raise ParameterError(
            f"{type(probe).__name__} needs a vizcnn.Model, got {type(model).__name__}. "
            "Wrap a network: vizcnn.Model(network, size=..., mean=..., std=...), or vizcnn.load('tiny')"
        )
    with borrow(model, type(probe).__name__):
        identity = model.provenance()  # before any run: some networks count their runs in a buffer
        found = dataset(images, probe.labels_from()) if probe.streams else None
        photos, seen, inputs = _read_inputs(probe, model, images if found is None else None)
        with add_context(f"input {tuple(inputs.shape)}" if photos else ""):
            given = _resolve_targets(probe, model, wanted)
            if given and not photos:
                given = check_without_images(model, given, probe.input_size(model))
            clean = vars(run_clean(model, inputs, given))
            yield Subject(
                question, model, identity, inputs, photos, seen, **clean, seed=seed, progress=progress, dataset=found
            )


def _read_inputs(probe: Asking, model: Model, images: Any) -> tuple[tuple[Photo, ...], tuple[Box, ...], Tensor]:
    if not probe.needs_images or probe.streams:
        if images is not None:
            raise ParameterError("this probe looks at the network alone and takes no images")
        return (), (), torch.empty(0, model.input.channels, *model.input.size)
    ready = [entry for source in expand_sources(images) for entry in _prepare_source(model, source)]
    if not ready:
        raise ParameterError("no images were given. Pass a path, an array, a tensor or a list of these")
    photos, seen, inputs = zip(*ready, strict=True)
    if len({tuple(x.shape) for x in inputs}) > 1:
        raise ShapeError(f"tensors of one call must share a shape, got {[tuple(x.shape) for x in inputs]}")
    return photos, seen, torch.stack(inputs)  # (N, C, H, W)


def _prepare_source(model: Model, source: Any) -> list[tuple[Photo, Box, Tensor]]:
    """A photograph is resized and cropped; a tensor is taken as the input that it is."""
    if not isinstance(source, Tensor):
        photo = open_photo(source)
        inputs, box = model.prepared(photo)
        return [(photo, box, inputs)]
    batch = source[None] if source.dim() == 3 else source
    if batch.dim() != 4 or batch.shape[1] != model.input.channels:
        raise ShapeError(
            f"an input tensor is ({model.input.channels}, H, W) or a batch of these, got {tuple(source.shape)}"
        )
    values = batch.detach().to(model.device, model.dtype)
    if not batch.numel():
        raise ShapeError(f"an input tensor is empty: {tuple(source.shape)}. Pass at least one image")
    check_unit_range(values)
    return [(to_photo(x), Box(0, 0, *x.shape[1:]), x) for x in values.clone()]


def _resolve_targets(probe: Asking, model: Model, wanted: Any) -> tuple[Target, ...] | None:
    """The targets that were asked for; None for whatever class is predicted."""
    if not probe.needs_target:
        if wanted is not None:
            raise ParameterError(f"this probe explains no target, got {wanted!r}. Leave the target out")
        return ()
    wanted = probe.default_targets(model) if wanted is None else wanted
    if wanted is None:
        return None
    return tuple(one.resolved(model) for one in parse_targets(wanted))
