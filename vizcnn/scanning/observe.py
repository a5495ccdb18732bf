"""Observing: run the network on batches and add what its layers give to tallies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vizcnn.errors import NonFiniteResult, ShapeError
from vizcnn.models.determinism import check_deterministic
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.model import Model
from vizcnn.models.outputs import require_output
from vizcnn.models.targets import OUTPUT, RAW
from vizcnn.scanning.layer_selection import OUTPUT_NAME, Shape
from vizcnn.scanning.loader import Batch
from vizcnn.scanning.statistics import BatchStatistics, Rank, compute_statistics
from vizcnn.scanning.tally import Tally, make_tally


@dataclass(frozen=True)
class ScanSettings:
    """What a scan observes and how. With equal settings, equal images give equal findings.

    layers: the shape of each layer's output by name. size: height and width of the inputs in px. top: the number of
        images kept for each channel. rank: what they are ranked by. batch: images per run of the network.
    threads: of torch on the processor; another number can change the last digits of what a network computes.
    """

    layers: dict[str, Shape]
    size: tuple[int, int]
    top: int
    rank: Rank
    batch: int
    threads: int

    def make_tallies(self) -> dict[str, Tally]:
        """A new tally for each layer."""
        return {
            name: make_tally(shape[0], shape[1] * shape[2] if len(shape) > 1 else 1, self.top)
            for name, shape in self.layers.items()
        }


@dataclass
class Finding:
    """What was found in images that follow each other in the data set.

    tallies: by layer. labels: the class of each image in order, None if it is unknown or the image unreadable.
    unreadable: the numbers of the images that could not be read, each with the reason.
    """

    tallies: dict[str, Tally]
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


Observe = Callable[[Batch, Finding], None]
"""Runs the network on a batch and adds its statistics to a finding."""


@contextmanager
def observe(model: Model, settings: ScanSettings) -> Iterator[Observe]:
    """While the context is open: a function that runs the network on a batch and adds its statistics to a finding.

    The network runs once per batch, and only as far as the layers need it. Statistics are computed while it runs, so
    that no layer's output is kept. The first batch is compared with a run of its first image alone.

    Raises DegenerateResult for a network that is random or mixes the images of a batch."""
    layers = [OUTPUT if name == OUTPUT_NAME else name for name in settings.layers]
    thresholds: dict[str, Tensor] = {}
    checked = False

    def keep(name: str, output: Tensor) -> BatchStatistics | Shape:
        shape = tuple(output.shape[1:])  # calls before a module's last one may have other shapes
        return compute_statistics(output, settings.rank, thresholds[name]) if shape == settings.layers[name] else shape

    def run(inputs: Tensor) -> dict[str, BatchStatistics]:
        seen = read(inputs.to(model.device, model.dtype))
        if OUTPUT in seen:
            output = seen.pop(OUTPUT)
            del seen[RAW]
            if OUTPUT_NAME in settings.layers:
                seen[OUTPUT_NAME] = keep(OUTPUT_NAME, require_output(output))
        for name, found in seen.items():
            if not isinstance(found, BatchStatistics):
                raise ShapeError(
                    f"layer {name!r} gives {found} for these images, {settings.layers[name]} for a grey one"
                )
        return seen

    def observe_batch(batch: Batch, finding: Finding) -> None:
        nonlocal checked
        finding.unreadable += batch.unreadable
        if batch.inputs is None:
            return
        thresholds.update({name: tally.threshold for name, tally in finding.tallies.items()})
        seen = run(batch.inputs)
        if not checked:
            _check_first_image(seen, run(batch.inputs[:1]), model.dtype)
            checked = True
        for name, tally in finding.tallies.items():
            tally.add(seen[name], batch.numbers, batch.labels)

    with torch.no_grad(), open_reader(model, layers, keep=keep) as read:
        yield observe_batch


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


def _check_first_image(
    together: dict[str, BatchStatistics], alone: dict[str, BatchStatistics], dtype: torch.dtype
) -> None:
    """Raise DegenerateResult if a batch's first image gives other maxima alone than together with the others."""
    for name, one in alone.items():
        if len(one.kept) and len(together[name].kept) and int(together[name].kept[0]) == 0:
            check_deterministic(f"layer {name!r}", one.highest[0], together[name].highest[0], dtype)
