"""Preparation: makes a Subject of what a person hands to a probe, and checks everything on the way."""

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


class ProbeLike(Protocol):
    """The members of a `vizcnn.Probe` that say what it needs. The module of that class imports this one, so this one
    cannot import the class."""

    needs_images: ClassVar[bool]
    streams: ClassVar[bool]
    needs_target: ClassVar[bool]

    def default_targets(self, model: Model) -> Sequence[Any] | None: ...

    def input_size(self, model: Model) -> tuple[int, int]: ...

    def labels_from(self) -> Any: ...


@contextmanager
def prepare(
    probe: ProbeLike, question: Question, model: Model, images: Any, target: Any, *, seed: int, progress: bool
) -> Iterator[Subject]:
    """Prepare a probe's subject. When the context closes, the network and the random state are as they were.

    An error from inside the context says which probe met it, on which model and input.
    """
    if not isinstance(model, Model):
        raise ParameterError(
            f"{type(probe).__name__} needs a vizcnn.Model, got {type(model).__name__}. "
            "Wrap a network: vizcnn.Model(network, size=..., mean=..., std=...), or vizcnn.load('tiny')"
        )
    with borrow(model, type(probe).__name__):
        identity = model.provenance()  # before any run: some networks count their runs in a buffer
        stream = dataset(images, probe.labels_from()) if probe.streams else None
        photos, seen, inputs = _read_inputs(probe, model, images if stream is None else None)
        with add_context(f"input {tuple(inputs.shape)}" if photos else ""):
            targets = _resolve_targets(probe, model, target)
            if targets and not photos:
                targets = check_without_images(model, targets, probe.input_size(model))
            clean = vars(run_clean(model, inputs, targets))
            yield Subject(
                question, model, identity, inputs, photos, seen, **clean, seed=seed, progress=progress, dataset=stream
            )


def _read_inputs(probe: ProbeLike, model: Model, images: Any) -> tuple[tuple[Photo, ...], tuple[Box, ...], Tensor]:
    if not probe.needs_images or probe.streams:
        if images is not None:
            raise ParameterError("this probe looks at the network alone and takes no images")
        return (), (), torch.empty(0, model.input.channels, *model.input.size)
    prepared = [image for source in expand_sources(images) for image in _prepare_source(model, source)]
    if not prepared:
        raise ParameterError("no images were given. Pass a path, an array, a tensor or a list of these")
    photos, seen, inputs = zip(*prepared, strict=True)
    if len({tuple(x.shape) for x in inputs}) > 1:
        raise ShapeError(f"tensors of one call must share a shape, got {[tuple(x.shape) for x in inputs]}")
    return photos, seen, torch.stack(inputs)  # (N, C, H, W)


def _prepare_source(model: Model, source: Any) -> list[tuple[Photo, Box, Tensor]]:
    """The photograph of each image in a source, the box of it that the network sees, and the input (C, H, W).

    A photograph is resized and cropped; a tensor is an input already, and its photograph is made from it."""
    if not isinstance(source, Tensor):
        photo = open_photo(source)
        inputs, box = model.prepared(photo)  # (C, H, W)
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


def _resolve_targets(probe: ProbeLike, model: Model, target: Any) -> tuple[Target, ...] | None:
    """The targets of every image, resolved; None where each image's own predicted class is its target."""
    if not probe.needs_target:
        if target is not None:
            raise ParameterError(f"this probe explains no target, got {target!r}. Leave the target out")
        return ()
    target = probe.default_targets(model) if target is None else target
    return None if target is None else tuple(one.resolved(model) for one in parse_targets(target))
