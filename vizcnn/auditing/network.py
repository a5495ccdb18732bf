"""The network as an audit asks it: class margins of altered images, every run counted and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, UnsuitableNetwork
from vizcnn.models.clean import run_clean
from vizcnn.models.functions import OUTPUT, Activations, OutputFunction
from vizcnn.models.head import Head
from vizcnn.models.layers.capture import choose_batch
from vizcnn.models.layers.last import find_last_spatial_layer
from vizcnn.models.model import Model
from vizcnn.models.outputs import require_output
from vizcnn.models.scoring import Indices, score_batches
from vizcnn.models.targets import Target

Margins = npt.NDArray[np.float64]


def ignore(_: int) -> None:
    """Tell nobody."""


class Network:
    """A borrowed model that is asked for margins: how far a class is ahead of the best other one, in logits.

        m_c(x) = z_c(x) - max of z_k(x) over k != c

    The class is the answer where its margin is above zero. Probabilities are taken as logarithms, which differ as
    logits do; one output is two classes, of logits 0 and z.

    images: (N, C, H, W), floats in [0, 1] or bytes. runs: of the network for one image, so far; a gradient counts as
    two. seconds: that they took. tell: is called with the runs that are done.
    """

    def __init__(self, model: Model, images: Tensor, tell: Callable[[int], object] = ignore) -> None:
        self.model, self.images, self.tell = model, images, tell
        self.runs, self.seconds = 0, 0.0
        with self.count(4):
            clean = run_clean(model, self.take(np.arange(min(2, len(images)))), None)
        output = clean.output
        if output is None or output.dim() != 2:
            raise UnsuitableNetwork(
                f"an audit is about classes of whole images, and the output of {model.name} is not one number per "
                "class. Say Model(output=...) where it has one that is"
            )
        self.head, self.layout = clean.head, clean.layout
        if output.shape[1] > 1 and self.head in ("sigmoid", "sigmoid-logits"):
            raise UnsuitableNetwork(
                f"{model.name} gives labels of which several may hold at once, and an audit asks which class wins. "
                "Audit a network whose classes exclude each other"
            )
        if output.shape[1] == 1 and len(model.labels or ()) == 1:
            raise UnsuitableNetwork(
                f"{model.name} has one output, which tells two classes apart, and one name for them, "
                f"{model.class_name(0)!r}. Give the names of both, first of the class below zero: labels=('other', "
                f"{model.class_name(0)!r})"
            )
        self.classes = max(2, output.shape[1])
        self.batch = choose_batch(model, self.size)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent and copied: a network that counts anew and tells nobody."""
        return {**vars(self), "tell": ignore, "runs": 0, "seconds": 0.0}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def last_layer(self) -> str | None:
        """The last layer with places, whose maps say where evidence lies; None where there is none."""
        if self.model.is_black_box:
            return None
        try:
            return self.model.default_layer or find_last_spatial_layer(self.model, self.take(np.arange(1)))
        except DegenerateResult:
            return None

    def take(self, indices: Indices) -> Tensor:
        """These images as inputs of the network, (n, C, H, W)."""
        return self.prepare(self.images[torch.from_numpy(np.asarray(indices, np.int64))])

    def prepare(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W), floats or bytes, as inputs on the model's device."""
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        return floats.to(self.model.device, self.model.dtype)

    @contextmanager
    def count(self, runs: int = 0) -> Iterator[None]:
        """Count these runs, and the time until the context closes as the network's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
        self.runs += runs
        self.tell(runs)

    def read_logits(self) -> Margins:
        """The logits of all images as they are, (N, classes)."""
        count, wanted = len(self.images), [_ask_logit(k, self.head) for k in range(self.classes)]
        return self._score(self.take, count, wanted)

    def read_logits_of(self, images: Tensor) -> Margins:
        """The logits of altered images (n, C, H, W), (n, classes)."""
        wanted = [_ask_logit(k, self.head) for k in range(self.classes)]
        return self._score(lambda some: self.prepare(images[torch.from_numpy(some)]), len(images), wanted)

    def measure_margins(self, alter: Callable[[Indices], Tensor], count: int, label: int) -> Margins:
        """The margins of a class for so many altered images, (count,).

        alter: makes the images (B, C, H, W) of some numbers below `count`."""
        return self._score(alter, count, [_ask_margin(label, self.head)])[:, 0]

    def _score(self, alter: Callable[[Indices], Tensor], count: int, wanted: list[Target]) -> Margins:
        found, altering = np.empty((count, len(wanted))), 0.0

        def alter_timed(indices: Indices) -> Tensor:
            nonlocal altering
            start = time.perf_counter()
            images = alter(indices)
            altering += time.perf_counter() - start
            return images

        scores = score_batches(
            self.model, alter_timed, np.arange(count), wanted, batch=self.batch, layout=self.layout, shown=False
        )
        with self.count():
            for indices, some in scores:
                found[indices] = some
                self.runs += len(indices)
                self.tell(len(indices))
        self.seconds -= altering  # pasting is no run of the network
        return found


def to_logits(output: Tensor, head: Head) -> Tensor:
    """An output (N, K) as numbers (N, K) whose differences are those of logits; (N, 2) for a single output."""
    if output.shape[1] == 1:
        z = output.clamp(1e-7, 1 - 1e-7).logit() if head == "sigmoid" else output  # (N, 1)
        return torch.cat([torch.zeros_like(z), z], 1)
    return output.clamp_min(1e-12).log() if head == "softmax" else output


def find_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of each image's own class: (N,), from logits (N, K) and classes (N,)."""
    own = logits.gather(1, labels[:, None])[:, 0]  # (N,)
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


@dataclass(frozen=True)
class _OfLogits(OutputFunction):
    """A function of the logits (N, K), wherever in what the network returns its output is."""

    head: Head = "logits"
    layers = frozenset({OUTPUT})

    def __call__(self, activations: Activations) -> Tensor:
        return self.function(to_logits(require_output(activations[OUTPUT]), self.head))


def _ask_logit(label: int, head: Head) -> Target:
    """The logit of a class."""
    return Target(((1.0, _OfLogits(lambda logits: logits[:, label], head)),))


def _ask_margin(label: int, head: Head) -> Target:
    """The margin of a class."""
    return Target(
        ((1.0, _OfLogits(lambda logits: find_margins(logits, logits.new_full((len(logits),), label).long()), head)),)
    )
