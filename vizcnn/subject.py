"""Subject: a network, prepared inputs and resolved targets: all that a probe needs to compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vizcnn.capture import activations
from vizcnn.errors import DegenerateResult, NonFiniteResult, ParameterError, ShapeError, TargetError, VizcnnError
from vizcnn.images import Photo, each_source, open_photo
from vizcnn.model import Box, Model
from vizcnn.results import Prediction, Provenance
from vizcnn.targets import Target, is_probability, target

if TYPE_CHECKING:
    from vizcnn.probe import Probe


@dataclass(frozen=True)
class Subject:
    """What a probe looks at.

    inputs: (N, C, H, W) in [0, 1], on the model's device; N is 0 for a probe of the network alone.
    photos, seen: the N images as the person gave them, and the box of each that the network sees.
    output: the network's raw output for the inputs, None when N is 0.
    targets: for each image its T targets.
    scores: float64 (N, T), the targets' numbers for the inputs.
    """

    model: Model
    inputs: Tensor
    photos: tuple[Photo, ...]
    seen: tuple[Box, ...]
    output: Any
    targets: tuple[tuple[Target, ...], ...]
    scores: npt.NDArray[np.float64]
    seed: int
    progress: bool

    def first(self, count: int) -> Subject:
        """The same subject with only its first images."""
        kept = {name: getattr(self, name)[:count] for name in ("inputs", "photos", "seen", "targets", "scores")}
        return replace(self, **kept, output=self.output[:count] if isinstance(self.output, Tensor) else self.output)

    def model_scores(self, images: Tensor, i: int) -> Tensor:
        """The numbers of image i's targets for other images (B, C, H, W): (B, T)."""
        return target_scores(self.model, images, self.targets[i])

    def predictions(self, top: int = 5) -> tuple[tuple[Prediction, ...], ...]:
        """The most probable classes of each image; empty where the output is not known to be of classes."""
        if self.model.labels is None or not isinstance(self.output, Tensor) or self.output.dim() != 2:
            return ((),) * len(self.photos)
        output = self.output.float()
        best = (output if is_probability(output) else output.softmax(1)).topk(min(top, output.shape[1]))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(tuple(Prediction(self.model.class_name(i), p) for i, p in zip(*row, strict=True)) for row in rows)

    def quantity(self) -> str:
        """What the targets' numbers are called: logit, probability, activation or score."""
        kinds = {t.quantity for row in self.targets for t in row}
        if kinds == {"logit"} and isinstance(self.output, Tensor) and is_probability(self.output):
            return "probability"
        return kinds.pop() if len(kinds) == 1 else "score"

    def provenance(self, probe: Probe[Any], **details: Any) -> Provenance:
        """The record kept with a result; `details` are what the options came to (sizes in px, engine used)."""
        from vizcnn import __version__

        return Provenance(
            version=__version__,
            torch=torch.__version__,
            probe=type(probe).name(),
            options=asdict(probe),  # type: ignore[call-overload]
            details=details,
            **self.model.provenance(),
            device=str(self.model.device),
            images=tuple((photo.name, photo.sha256()) for photo in self.photos),
            targets=tuple(tuple(str(t) for t in row) for row in self.targets),
            seed=self.seed,
            paper=probe.paper,
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
    context = f"{type(probe).__name__} on {model.name}"
    devices = [model.device] if model.device.type == "cuda" else []
    with _explained(context), model.borrowed(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        _refuse_batch_statistics(model.network)
        photos, seen, inputs = _inputs(probe, model, images)
        with _explained(f"input {tuple(inputs.shape)}" if photos else ""):
            output = _clean_output(model, inputs) if photos else None
            targets = _targets(model, output, wanted, len(photos))
            clean = _scores(model, inputs, targets)
            yield Subject(model, inputs, photos, seen, output, targets, clean, seed, progress)


@contextmanager
def _explained(context: str) -> Iterator[None]:
    try:
        yield
    except VizcnnError as error:
        if context:
            error.within(context)
        raise
    except Exception as error:
        error.add_note(f"vizcnn: {context}")
        raise


def _inputs(probe: Probe[Any], model: Model, images: Any) -> tuple[tuple[Photo, ...], tuple[Box, ...], Tensor]:
    if not probe.needs_images:
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
    if not (values.isfinite().all() and values.min() >= 0 and values.max() <= 1):
        raise ShapeError(
            f"an input tensor holds values in [0, 1], got {values.min():g}..{values.max():g}. "
            "Pass images before normalisation: the model normalises them itself"
        )
    return [(_photo(x), Box(0, 0, *x.shape[1:]), x) for x in values.clone()]


def _photo(inputs: Tensor) -> Photo:
    return Photo(np.ascontiguousarray(inputs.permute(1, 2, 0).float().cpu().numpy()), "tensor")


def _refuse_batch_statistics(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise DegenerateResult(
                f"layer {name!r} normalises with the statistics of each batch (track_running_stats=False), so images "
                "probed together would change each other's answer. Use a network with running statistics"
            )


@torch.inference_mode()
def _clean_output(model: Model, inputs: Tensor) -> Any:
    """The network's output, seen to be finite and the same twice."""
    output = model(inputs)
    if isinstance(output, Tensor):
        if not output.isfinite().all():
            raise NonFiniteResult("the network's output for these images holds NaN or infinity. Check its weights")
        again = model(inputs)
        if not torch.allclose(output, again, rtol=1e-3, atol=1e-5 * float(output.abs().max())):
            raise DegenerateResult(
                "two runs of the network on the same input differ, though it is in eval mode. Does it use functional "
                "dropout without training=self.training, or noise?"
            )
    return output


def _targets(model: Model, output: Any, wanted: Any, images: int) -> tuple[tuple[Target, ...], ...]:
    if not images:
        return ()
    if wanted is None:
        return tuple((t.resolved(model),) for t in _predicted(output))
    several = wanted if isinstance(wanted, list | tuple) else [wanted]
    if not several:
        raise TargetError("the list of targets is empty. Leave it out to explain the predicted class")
    return (tuple(target(one).resolved(model) for one in several),) * images


def _predicted(output: Any) -> list[Target]:
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] < 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TargetError(
            f"the network's output is {got}, not (N, classes), so there is no predicted class. Give a target"
        )
    return [target(index) for index in output.argmax(1).tolist()]


@torch.inference_mode()
def _scores(model: Model, inputs: Tensor, targets: tuple[tuple[Target, ...], ...]) -> npt.NDArray[np.float64]:
    rows = [target_scores(model, image[None], row)[0] for image, row in zip(inputs, targets, strict=True)]
    for row, numbers in zip(targets, rows, strict=True):
        for one, number in zip(row, numbers, strict=True):
            if not number.isfinite():
                raise NonFiniteResult(f"target {one} is {float(number)} for one of these images")
    return torch.stack(rows).double().cpu().numpy() if rows else np.empty((0, 0))


def target_scores(model: Model, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """The targets' numbers for images (B, C, H, W), from one run of the network: (B, T)."""
    values = activations(model, images, frozenset().union(*(t.layers for t in targets)))
    return torch.stack([t(values) for t in targets], 1)  # (B, T)
