"""Preparation: makes a Subject of what a person hands to a probe, and checks everything on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from vizcnn import progress
from vizcnn.errors import ImageError, ParameterError, ShapeError
from vizcnn.geometry import Box
from vizcnn.inputs.datasets import dataset
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.readers import list_readers
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import add_context, borrow
from vizcnn.models.clean import run_clean
from vizcnn.models.determinism import check_without_images
from vizcnn.models.model import Model
from vizcnn.models.preparing import prepare_source, require_model
from vizcnn.models.remembering import keep, recall
from vizcnn.models.targets import Target, parse_targets
from vizcnn.probing.subject import Question, Subject
from vizcnn.results.photos import DRAWN_PHOTOS, DRAWN_SIDE, SIDE, reduce_photo


class ProbeLike(Protocol):
    """The members of a `vizcnn.Probe` that say what it needs. The module of that class imports this one, so this one
    cannot import the class."""

    needs_images: ClassVar[bool]
    needs_photos: ClassVar[bool]
    streams: ClassVar[bool]
    needs_target: ClassVar[bool]
    needs_network: ClassVar[bool]

    def default_targets(self, model: Model) -> Sequence[Any] | None: ...

    def input_size(self, model: Model) -> tuple[int, int]: ...

    def labels_from(self) -> Any: ...


@contextmanager
def prepare(
    probe: ProbeLike,
    question: Question,
    model: Model,
    images: Any,
    target: Any,
    *,
    seed: int,
    progress: bool,
    strict: bool = False,
) -> Iterator[Subject]:
    """Prepare a probe's subject. When the context closes, the network and the random state are as they were.

    An error from inside the context says which probe met it, on which model and input.
    """
    require_model(type(probe).__name__, model)
    with borrow(model, type(probe).__name__):
        if probe.needs_network:
            refuse_black_box(model.network, model.name)
        identity = recall(model, "identity") or model.provenance()  # before any run: some count their runs in a buffer
        keep(model, "identity", identity)
        stream = dataset(images, probe.labels_from()) if probe.streams else None
        photos, seen, inputs, refused = _read_inputs(probe, model, images if stream is None else None, strict, progress)
        with add_context(f"input {tuple(inputs.shape)}" if photos else ""):
            targets = _resolve_targets(probe, model, target)
            if targets and not photos:
                targets = check_without_images(model, targets, probe.input_size(model))
            clean = run_clean(model, inputs, targets, weights=identity["weights_sha256"], strict=strict)
            subject = Subject(
                question,
                model,
                identity,
                inputs,
                photos,
                seen,
                clean,
                seed=seed,
                progress=progress,
                dataset=stream,
                strict=strict,
                refused=refused,
            )
            yield subject.keep(clean.remaining)


_NAMELESS = ("image", "tensor")  # of which a call may have several


def _read_inputs(
    probe: ProbeLike, model: Model, images: Any, strict: bool, shown: bool
) -> tuple[tuple[Photo, ...], tuple[Box, ...], Tensor, tuple[tuple[str, str], ...]]:
    """The photographs, the box of each that the network sees, the inputs (N, C, H, W), and what could not be read."""
    if not probe.needs_images or probe.streams:
        if images is not None:
            raise ParameterError("this probe looks at the network alone and takes no images")
        return (), (), torch.empty(0, model.input.channels, *model.input.size), ()
    photos: list[Photo] = []
    seen: list[Box] = []
    inputs: list[Tensor] = []
    refused: list[tuple[str, str]] = []
    first: ImageError | ShapeError | None = None  # the only one that is kept: an error holds what was being read

    def refuse(name: str, error: ImageError | ShapeError) -> None:
        nonlocal first
        if strict:
            raise error
        first = first or error
        refused.append((name, str(error)))

    with progress.bar(None, "reading", "image", shown=shown) as bar:
        for number, (name, read) in enumerate(list_readers(images, model.input.reading), 1):
            place = f"{name} {number}" if name in _NAMELESS else name
            try:
                found = prepare_source(model, read())
            except (ImageError, ShapeError) as error:
                refuse(place, error)
                found = []
            for i, one in enumerate(found, 1):
                if isinstance(one, ShapeError):
                    refuse(f"{place}, image {i}", one)
                    continue
                photo, box, values = one
                side = DRAWN_SIDE if len(photos) < DRAWN_PHOTOS else SIDE
                photos.append(photo if probe.needs_photos else reduce_photo(photo, side, model.input.display))
                seen.append(box)
                inputs.append(values)
            found = []  # else it would be held while the next is read
            bar.update()
    if not inputs:
        if first:
            raise first
        raise ParameterError("no images were given. Pass a path, an array, a tensor or a list of these")
    if len(shapes := {tuple(x.shape): None for x in inputs}) > 1:
        raise ShapeError(f"tensors of one call must share a shape, got {', '.join(map(str, shapes))}")
    return tuple(photos), tuple(seen), _stack(inputs), tuple(refused)


def _stack(inputs: list[Tensor]) -> Tensor:
    """The inputs (C, H, W) as one tensor (N, C, H, W). Each is let go once it is copied, for memory's sake."""
    stacked = inputs[0].new_empty(len(inputs), *inputs[0].shape)
    for i in reversed(range(len(stacked))):
        stacked[i] = inputs.pop()
    return stacked


def _resolve_targets(probe: ProbeLike, model: Model, target: Any) -> tuple[Target, ...] | None:
    """The targets of every image, resolved; None where each image's own predicted class is its target."""
    if not probe.needs_target:
        if target is not None:
            raise ParameterError(f"this probe explains no target, got {target!r}. Leave the target out")
        return ()
    target = probe.default_targets(model) if target is None else target
    return None if target is None else tuple(one.resolved(model) for one in parse_targets(target))
