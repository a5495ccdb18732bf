"""Units: what the answer loses when a channel of a late layer is set to zero, one at a time, by exact runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vizcnn.errors import DegenerateResult
from vizcnn.explaining.question import Question
from vizcnn.models.batches import default_part_batch, run_batches
from vizcnn.models.determinism import check_deterministic, score_activations
from vizcnn.models.layers.axes import find_axes, find_spatial_layers, to_network_form, to_usual_form
from vizcnn.models.layers.capture import choose_batch, hook_layer, read_activations, read_answer
from vizcnn.models.layers.last import find_last_spatial_layer
from vizcnn.models.model import Model
from vizcnn.models.scoring import Indices, score_batches

SHOWN = 4
"""Units that an explanation shows."""


@dataclass(frozen=True)
class Effects:
    """What the answer's score loses without each channel of a layer.

    losses: float64 (C,). activations: float32 (C, h, w), of the image."""

    layer: str
    losses: npt.NDArray[np.float64]
    activations: npt.NDArray[np.float32]

    def list_strongest(self) -> list[int]:
        """The channels that the answer needs most, best first, SHOWN at most."""
        order = np.argsort(-self.losses, kind="stable")[:SHOWN].tolist()
        return [channel for channel in order if self.losses[channel] > 0]


@torch.no_grad()
def choose_layer(question: Question) -> str:
    """The layer whose channels are looked at: that of the CAM, or where that has one channel for each class, which are
    the answers themselves, the last before it with maps of other channels. Raises DegenerateResult."""
    model, image = question.model, question.image[None]  # (1, C, H, W)
    last = model.default_layer or find_last_spatial_layer(model, image)
    names = [*find_spatial_layers(model, image)]
    before = names[: names.index(last) + 1][::-1] if last in names else [last]
    channels = read_activations(model, image, before)
    for name in before:
        if channels[name].dim() == 4 and channels[name].shape[1] != len(question.output):
            return name
    raise DegenerateResult("no layer gives maps other than those of the classes")


@torch.no_grad()
def measure_effects(question: Question, layer: str) -> Effects:
    """What the answer's score loses when each channel of a layer is set to zero, one at a time.

    Up to the layer all these runs are the same. So one image runs that far, and the rest of the network gets as many
    copies as channels are tried. What is reported is checked by runs of the whole network, which take over where a
    network does not let its images become more on the way."""
    model, image = question.model, question.image[None]  # (1, C, H, W)
    maps = read_activations(model, image, [layer])[layer]  # (1, C, h, w)
    activations, count = maps[0].float().cpu().numpy(), maps.shape[1]
    scores = _run_behind(question, layer, count)
    if scores is not None:
        effects = Effects(layer, question.score - scores, activations)
        chosen = np.array([*dict.fromkeys([*effects.list_strongest(), 0, count - 1])])
        whole = _run_whole(question, layer, chosen)
        if _are_same(scores[chosen], whole, model):
            effects.losses[chosen] = question.score - whole
            return effects
    return Effects(layer, question.score - _run_whole(question, layer, np.arange(count)), activations)


def _are_same(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64], model: Model) -> bool:
    try:
        check_deterministic("the score", torch.from_numpy(some), torch.from_numpy(others), model.dtype)
    except DegenerateResult:
        return False
    return True


def _run_behind(question: Question, layer: str, count: int) -> npt.NDArray[np.float64] | None:
    """The answer's scores (count,) without each channel, from runs that share what lies before the layer; None where
    the network does not go on with more images than it began with."""
    model, image, channels = question.model, question.image[None].contiguous(), [0]
    batch = default_part_batch(question.subject.size, image.device)

    def run(part: slice) -> Tensor:
        channels[:] = range(part.start, part.stop)
        answer = read_answer(model, model(image), len(channels))
        return score_activations([question.answer], answer, len(channels))[:, 0].double().cpu()  # (B,)

    try:
        with _silence(question, layer, lambda: channels):
            scores = torch.cat([some for _, some in run_batches(count, batch, run)])
    except Exception:  # whatever it was, runs of the whole network decide
        return None
    return scores.numpy() if len(scores) == count and scores.isfinite().all() else None


def _run_whole(question: Question, layer: str, chosen: Indices) -> npt.NDArray[np.float64]:
    """The answer's scores (n,) without each of these channels, each from a run of its own from pixels to output."""
    model, image, channels = question.model, question.image, [0]
    batch, found = choose_batch(model, question.subject.size), np.empty(len(chosen))

    def alter(indices: Indices) -> Tensor:
        channels[:] = chosen[indices].tolist()
        return image.expand(len(indices), *image.shape)  # (B, C, H, W)

    with _silence(question, layer, lambda: channels):
        for indices, scores in score_batches(
            model, alter, np.arange(len(chosen)), [question.answer], batch=batch,
            layout=question.subject.layout, label="units", shown=question.subject.progress,
        ):  # fmt: skip
            found[indices] = scores[:, 0]
    return found


@contextmanager
def _silence(question: Question, layer: str, list_channels: Callable[[], Sequence[int]]) -> Iterator[None]:
    """While the context is open, the layer gives one image for each of the channels, with that channel at zero. Of a
    module that the network calls several times, that is the last call."""
    model, image = question.model, question.image[None]  # (1, C, H, W)
    axes, calls, seen = find_axes(model, image, [layer]).get(layer), _count_calls(model, layer, image), [0]

    def silence(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        seen[0] += 1
        if seen[0] % calls:
            return None
        channels = list_channels()
        usual = to_usual_form(output, axes)
        copies = usual.expand(len(channels), *usual.shape[1:]).clone()  # (B, C, h, w)
        copies[range(len(channels)), channels] = 0
        return to_network_form(copies, output, axes).contiguous()

    with hook_layer(model.layer(layer), silence):
        yield


def _count_calls(model: Model, layer: str, image: Tensor) -> int:
    """How often a run of the network calls a layer."""
    calls = [0]

    def count(_module: nn.Module, _inputs: object, _output: object) -> None:
        calls[0] += 1

    with hook_layer(model.layer(layer), count):
        model(image)
    return max(1, calls[0])
