"""Observing: run the network on batches and add what its layers give to tallies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import NonFiniteResult, ShapeError
from vizcnn.models.determinism import check_deterministic
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.layers.readings import finish_reading, split_reading
from vizcnn.models.model import Model
from vizcnn.models.outputs import require_output
from vizcnn.models.targets import OUTPUT, RAW
from vizcnn.scanning.joined import JoinedTallies
from vizcnn.scanning.layer_selection import OUTPUT_NAME, Shape
from vizcnn.scanning.loader import Batch
from vizcnn.scanning.statistics import BatchStatistics, Rank, compute_statistics, make_scratch
from vizcnn.scanning.study import (
    Answers,
    LayerStudy,
    StudySettings,
    count_bins,
    make_answers,
    make_empty_study,
    make_layer_study,
    merge_answers,
    merge_studies,
)


@dataclass(frozen=True)
class ScanSettings:
    """What a scan observes and how. With equal settings, equal images give equal findings.

    layers: the shape of each layer's output by name. size: height and width of the inputs in px. top: the number of
        images kept for each channel. rank: what they are ranked by. batch: images per run of the network.
    threads: of torch on the processor; another number can change the last digits of what a network computes.
    study: what is kept for an atlas as well; None for nothing.
    """

    layers: dict[str, Shape]
    size: tuple[int, int]
    top: int
    rank: Rank
    batch: int
    threads: int
    study: StudySettings | None = None

    def make_finding(self) -> Finding:
        """A new finding, of no images."""
        if self.study is None:
            return Finding(self.make_tallies())
        studies = {name: make_empty_study(shape[0]) for name, shape in self.layers.items()}
        return Finding(self.make_tallies(), studies, merge_answers([], self.study.best))

    def make_tallies(self) -> JoinedTallies:
        """New tallies of the layers."""
        return JoinedTallies({name: (shape[0], prod(shape[1:])) for name, shape in self.layers.items()}, self.top)


@dataclass
class Finding:
    """What was found in images that follow each other in the data set.

    tallies: of all layers. studies: by layer; answers: what the network answers. There are no studies and answers in a
    scan without a study. labels: the class of each image in order, None if it is unknown or the image unreadable.
    unreadable: the numbers of the images that could not be read, each with the reason.
    """

    tallies: JoinedTallies
    studies: dict[str, LayerStudy] = field(default_factory=dict)
    answers: Answers | None = None
    labels: list[str | None] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)


@contextmanager
def set_threads(count: int) -> Iterator[None]:
    """While the context is open, torch computes with so many threads on the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Seen:
    """What a layer gives for a batch: its statistics, and in a scan with a study all activations in bins."""

    statistics: BatchStatistics
    bins: Tensor | None


Observe = Callable[[Batch, Finding], None]
"""Runs the network on a batch and adds its statistics to a finding."""


@contextmanager
def observe(model: Model, settings: ScanSettings) -> Iterator[Observe]:
    """While the context is open: a function that runs the network on a batch and adds its statistics to a finding.

    The network runs once per batch, and only as far as the layers need it. Statistics are computed while it runs, so
    that no layer's output is kept. The first batch is compared with a run of its first image alone.

    Raises DegenerateResult for a network that is random or mixes the images of a batch."""
    readings: dict[str, list[str]] = {}
    for name in settings.layers:
        readings.setdefault(OUTPUT if name == OUTPUT_NAME else split_reading(name)[1], []).append(name)
    if settings.study:
        readings.setdefault(OUTPUT, [])
    thresholds: dict[str, Tensor] = {}
    scratch = make_scratch()
    checked = False

    def keep(layer: str, output: Tensor) -> dict[str, Seen | Shape]:
        return {name: look_at(name, finish_reading(name, output)) for name in readings[layer]}

    def look_at(name: str, output: Tensor) -> Seen | Shape:
        shape = tuple(output.shape[1:])  # calls before a module's last one may have other shapes
        if shape != settings.layers[name]:
            return shape
        statistics = compute_statistics(output, settings.rank, thresholds[name], scratch)
        return Seen(statistics, count_bins(output, statistics.usable) if settings.study else None)

    def run(inputs: Tensor) -> tuple[dict[str, Seen], Any]:
        seen, output = read(inputs.to(model.device, model.dtype)), None
        if OUTPUT in seen:
            output = seen.pop(OUTPUT)
            del seen[RAW]
            if readings.get(OUTPUT):
                seen[OUTPUT] = keep(OUTPUT, require_output(output))
        found = {name: one for layer in seen.values() for name, one in layer.items()}
        for name, one in found.items():
            if not isinstance(one, Seen):
                raise ShapeError(f"layer {name!r} gives {one} for these images, {settings.layers[name]} for a grey one")
        return found, output

    def observe_batch(batch: Batch, finding: Finding) -> None:
        nonlocal checked
        finding.unreadable += batch.unreadable
        if batch.inputs is None:
            return
        thresholds.update(finding.tallies.thresholds())
        seen, output = run(batch.inputs)
        if not checked:
            _check_first_image(seen, run(batch.inputs[:1])[0], model.dtype)
            checked = True
        finding.tallies.add({name: one.statistics for name, one in seen.items()}, batch.numbers, batch.labels)
        if settings.study:
            _add_to_study(finding, seen, output, batch.numbers, settings.study)

    with torch.no_grad(), open_reader(model, [*readings], keep=keep) as read:
        yield observe_batch


def _add_to_study(
    finding: Finding, seen: Mapping[str, Seen], output: Any, numbers: Tensor, settings: StudySettings
) -> None:
    """Add what one batch gives to the studies of a finding. numbers: of the batch's images."""
    for name, before in finding.studies.items():
        one = seen[name]
        assert one.bins is not None
        finding.studies[name] = merge_studies([before, make_layer_study(one.statistics, one.bins, numbers, settings)])
    assert finding.answers is not None
    finding.answers = merge_answers([finding.answers, make_answers(output, numbers, settings)], settings.best)


def check_layers(model: Model, image: Tensor, layers: Sequence[str]) -> None:
    """Raise what a scan of these layers raises for any images, as far as one image (1, C, H, W) tells."""
    names = [OUTPUT if name == OUTPUT_NAME else name for name in layers]
    with torch.no_grad(), open_reader(model, names) as read:
        # the other is darker, since the mean and deviation of a batch of mirror images are those of the image alone
        together, alone = read(torch.cat([image, image.flip(-1) / 2])), read(image)
    if OUTPUT in names:
        require_output(together[OUTPUT])
    for name in names:
        if not alone[name].isfinite().all():
            raise NonFiniteResult(f"there is no image that can be read and gives layer {name!r} finite activations")
        check_deterministic(f"layer {name!r}", alone[name][0], together[name][0], model.dtype)


def _check_first_image(together: Mapping[str, Seen], alone: Mapping[str, Seen], dtype: torch.dtype) -> None:
    """Raise DegenerateResult if a batch's first image gives other maxima alone than together with the others."""
    for name, seen in alone.items():
        one, beside = seen.statistics, together[name].statistics
        if one.usable[0] and beside.usable[0]:
            check_deterministic(f"layer {name!r}", one.highest[0], beside.highest[0], dtype)
