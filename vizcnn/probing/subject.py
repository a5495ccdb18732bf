"""Subject: a network, prepared inputs and resolved targets: all that a probe needs to compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import (
    ParameterError,
    ShapeError,
)
from vizcnn.geometry import Box
from vizcnn.inputs.dataset import Images, dataset, photo_of
from vizcnn.inputs.images import Photo, each_source, open_photo
from vizcnn.models.borrowing import borrow, explained
from vizcnn.models.determinism import check_without_images, clean_runs
from vizcnn.models.head import QUANTITIES, Head, probabilities
from vizcnn.models.model import Model
from vizcnn.models.targets import Target, each_target
from vizcnn.results import Prediction, Provenance

if TYPE_CHECKING:
    from vizcnn.probing.probe import Probe


@dataclass(frozen=True)
class Subject:
    """What a probe looks at.

    identity: what names the model in a saved result, as it was before the first run.
    inputs: (N, C, H, W) in [0, 1], on the model's device; N is 0 for a probe of the network alone.
    photos, seen: the N images as the person gave them, and the box of each that the network sees.
    output: the network's raw output (N, ...) for the inputs; None when N is 0 or it is not one tensor.
    head: what that output is, see `vizcnn.models.head`.
    targets: for each image its T targets; for a probe of the network alone one row of them, where it has any.
    scores: float64 (N, T), the targets' numbers for the inputs.
    layout: how images lie in memory in runs of many, see `vizcnn.models.scoring`.
    dataset: for a probe of whole data sets its images, which are then no inputs: N is 0.
    """

    model: Model
    identity: Mapping[str, Any]
    inputs: Tensor
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    output: Tensor | None
    head: Head
    targets: tuple[tuple[Target, ...], ...]
    scores: npt.NDArray[np.float64]
    layout: torch.memory_format
    seed: int
    progress: bool
    dataset: Images | None = None

    def first(self, count: int) -> Subject:
        """The same subject with only its first images."""
        kept = {name: getattr(self, name)[:count] for name in ("inputs", "photos", "seen", "targets", "scores")}
        return replace(self, **kept, output=None if self.output is None else self.output[:count])

    def largest(self, i: int) -> float:
        """The network's largest output for image i, in magnitude; 0 where the output is not one tensor."""
        return 0.0 if self.output is None else float(self.output[i].abs().max())

    def predictions(self, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """The most probable classes of each image; empty where nothing is known of probabilities or names."""
        if self.model.labels is None or self.output is None or self.output.dim() != 2 or self.head == "scores":
            return ((),) * len(self.photos)
        best = probabilities(self.output.float(), self.head).topk(min(top, self.output.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(tuple(Prediction(self.model.class_name(i), p) for i, p in zip(*row, strict=True)) for row in rows)

    def quantity(self, t: int) -> str:
        """What target t's numbers are called: logit, probability, activation of a layer, or score."""
        kinds = {row[t].quantity for row in self.targets}
        kind = kinds.pop() if len(kinds) == 1 else "score"
        return kind if kind != "logit" or self.output is None else QUANTITIES[self.head]

    def said(self, i: int) -> str:
        """What the network says of image i, to begin a sentence with; nothing where its classes are unknown."""
        best = self.predictions(1)[i]
        return f"{best[0].label} {best[0].said()}; " if best else ""

    def about(self, i: int, t: int) -> str:
        """` of TARGET`, unless the target is the class that `said` has named."""
        best, one = self.predictions(1)[i], str(self.targets[i][t])
        return "" if best and one == best[0].label else f" of {one}"

    def in_photo(self, i: int, box: Box) -> Box:
        """A box in px of input i, in px of its photograph."""
        return box.mapped((self.inputs.shape[2], self.inputs.shape[3]), self.seen[i])

    def place(self, i: int, box: Box) -> str:
        """Where a box in px of photograph i lies: `upper left (x 20-40, y 0-20)`, in ninths of what is seen."""
        seen = self.seen[i]
        down = (box.top + box.bottom - 2 * seen.top) / (2 * (seen.bottom - seen.top))
        across = (box.left + box.right - 2 * seen.left) / (2 * (seen.right - seen.left))
        row = ("upper", "middle", "lower")[min(2, int(down * 3))]
        column = ("left", "centre", "right")[min(2, int(across * 3))]
        name = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
        form = ".0f" if min(self.photos[i].size) >= 20 else ".3g"
        x, y = (f"{low:{form}}-{high:{form}}" for low, high in ((box.left, box.right), (box.top, box.bottom)))
        return f"{name} (x {x}, y {y})"

    def provenance(self, probe: Probe[Any], *, paper: str = "", **details: Any) -> Provenance:
        """The record kept with a result; `details` are what the options came to (sizes in px, engine used), `paper` the
        source of the method that was used, where a probe has several."""
        from vizcnn import __version__

        return Provenance(
            version=__version__,
            torch=torch.__version__,
            probe=type(probe).name(),
            options=asdict(probe),  # type: ignore[call-overload]
            details=details,
            **self.identity,
            device=str(self.model.device),
            images=tuple((photo.name, photo.sha256()) for photo in self.photos),
            targets=tuple(tuple(str(t) for t in row) for row in self.targets),
            target_specs=tuple(tuple(t.spec for t in row) for row in self.targets),
            seed=self.seed,
            paper=paper or probe.paper,
        )


@contextmanager
def examined(
    probe: Probe[Any], model: Model, images: Any, wanted: Any, *, seed: int, progress: bool
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
        found = dataset(images, getattr(probe, "labels", None)) if probe.streams else None
        photos, seen, inputs = _inputs(probe, model, images if found is None else None)
        with explained(f"input {tuple(inputs.shape)}" if photos else ""):
            given = _given_targets(probe, model, wanted)
            if given and not photos:
                given = check_without_images(model, given, probe.input_size(model))
            clean = vars(clean_runs(model, inputs, given))
            yield Subject(model, identity, inputs, photos, seen, **clean, seed=seed, progress=progress, dataset=found)


def _inputs(probe: Probe[Any], model: Model, images: Any) -> tuple[tuple[Photo, ...], tuple[Box, ...], Tensor]:
    if not probe.needs_images or probe.streams:
        if images is not None:
            raise ParameterError("this probe looks at the network alone and takes no images")
        return (), (), torch.empty(0, model.input.channels, *model.input.size)
    ready = [entry for source in each_source(images) for entry in _prepared(model, source)]
    if not ready:
        raise ParameterError("no images were given. Pass a path, an array, a tensor or a list of these")
    photos, seen, inputs = zip(*ready, strict=True)
    if len({tuple(x.shape) for x in inputs}) > 1:
        raise ShapeError(f"tensors of one call must share a shape, got {[tuple(x.shape) for x in inputs]}")
    return photos, seen, torch.stack(inputs)  # (N, C, H, W)


def _prepared(model: Model, source: Any) -> list[tuple[Photo, Box, Tensor]]:
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
    if not (values.isfinite().all() and values.min() >= 0 and values.max() <= 1):
        raise ShapeError(
            f"an input tensor holds values in [0, 1], got {values.min():g}..{values.max():g}. "
            "Pass images before normalisation: the model normalises them itself"
        )
    return [(photo_of(x), Box(0, 0, *x.shape[1:]), x) for x in values.clone()]


def _given_targets(probe: Probe[Any], model: Model, wanted: Any) -> tuple[Target, ...] | None:
    """The targets that were asked for; None for whatever class is predicted."""
    if not probe.needs_target:
        if wanted is not None:
            raise ParameterError(f"this probe explains no target, got {wanted!r}. Leave the target out")
        return ()
    wanted = probe.default_targets(model) if wanted is None else wanted
    if wanted is None:
        return None
    return tuple(one.resolved(model) for one in each_target(wanted))
