"""Surveys: what a scan is to look at, and what it has found in a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vizcnn.errors import ImageError, LayerNotFound, ShapeError, TargetError, did_you_mean
from vizcnn.inputs.datasets import Images
from vizcnn.models.determinism import check_deterministic
from vizcnn.models.layers.axes import find_layers, to_usual_form
from vizcnn.models.layers.capture import open_reader
from vizcnn.models.layers.dryrun import watch_layers
from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, describe_activations
from vizcnn.scanning.decode import Batch
from vizcnn.scanning.glance import Glance, Rank, glance
from vizcnn.scanning.tally import Tally, empty

Shape = tuple[int, ...]
"""Of a layer's output for one image, in its usual form: (C, h, w) or (C,)."""

OUTPUT_NAME = "output"
"""What the network's own output is called among the layers of a scan."""


@dataclass(frozen=True)
class Terms:
    """What to look at, and how: equal terms, equal findings.

    layers: the shape of each by name. size: height and width of the inputs in px. top: images kept for each channel.
    threads: of torch on the processor; another number can change a network's answer in the last digits.
    """

    layers: dict[str, Shape]
    size: tuple[int, int]
    top: int
    rank: Rank
    batch: int
    threads: int

    def tallies(self) -> dict[str, Tally]:
        return {
            name: empty(shape[0], shape[1] * shape[2] if len(shape) > 1 else 1, self.top)
            for name, shape in self.layers.items()
        }


@dataclass
class Finding:
    """What was found in some images that follow each other.

    labels: of each image, in their order; None where unknown or unreadable. unreadable: numbers, each with the reason.
    """

    tallies: dict[str, Tally]
    labels: list[str | None] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)


def size_of(images: Images, model: Model) -> tuple[int, int]:
    """Height and width of the inputs: tensors have their own."""
    try:
        first = images.read(0)[0]
    except ImageError:
        return model.input.size
    return (int(first.shape[-2]), int(first.shape[-1])) if isinstance(first, Tensor) else model.input.size


def surveyed(model: Model, size: tuple[int, int], patterns: Sequence[str] | None) -> dict[str, Shape]:
    """The layers that are meant, each with its output's shape, in the order of running.

    patterns: names, or patterns such as `layer?.*`; `output` is the network's own. None: convolutions, linear layers
    and the output. Raises LayerNotFound, and TargetError for a layer whose output has no channels."""
    shapes, layers = _shapes(model, size), model.layers()
    if patterns is None:
        usable = [name for name, shape in shapes.items() if len(shape) in (1, 3)]
        patterns = [name for name in usable if name == OUTPUT_NAME or _weighs(layers[name])]
    chosen = {name for pattern in patterns for name in _matching(model, shapes, pattern)}
    if not chosen:
        raise TargetError(f"no layer of {model.name} is left to look at. Name some, see: vizcnn layers {model.name}")
    for name in chosen:
        if len(shapes[name]) not in (1, 3):
            given = describe_activations(torch.empty(1, *shapes[name], device="meta"))
            raise TargetError(f"layer {name!r} gives {given} for an image, not (N, C) or (N, C, h, w)")
    return {name: shape for name, shape in shapes.items() if name in chosen}


def _weighs(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)


def _matching(model: Model, shapes: dict[str, Shape], pattern: str) -> list[str]:
    found = [name for name in shapes if name == pattern] or [n for n in shapes if fnmatchcase(n, pattern)]
    if not found and pattern in model.layers():
        raise TargetError(
            f"layer {pattern!r} of {model.name} did not run, or gives no tensor with one entry per image, or is called "
            f"{OUTPUT_NAME!r} but is not what the network returns"
        )
    if not found:
        raise LayerNotFound(
            f"no layer named {pattern!r} in {model.name}.{did_you_mean(pattern, shapes)} "
            f"See: vizcnn layers {model.name}"
        )
    return found


@torch.no_grad()
def _shapes(model: Model, size: tuple[int, int]) -> dict[str, Shape]:
    """Of every layer that gives a tensor, in the order of their last runs."""
    shapes, known = dict[str, Shape](), find_layers(model, model.grey(size))
    namesake: Any = None

    def see(name: str, output: Any) -> None:
        nonlocal namesake
        namesake = output if name == OUTPUT_NAME else namesake
        shapes.pop(name, None)
        if isinstance(output, Tensor) and output.dim():
            raw = name == OUTPUT_NAME  # the network's own is taken as it is
            values = output if raw else to_usual_form(output, known[name].axes if name in known else None)
            if len(values) == 1:
                shapes[name] = tuple(values.shape[1:])

    with watch_layers(model.network, see):
        answer = model(model.grey(size))
    if namesake is None or namesake is answer:
        see(OUTPUT_NAME, answer)
    else:  # one name for two things
        shapes.pop(OUTPUT_NAME, None)
    return shapes


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While the context is open, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Look = Callable[[Batch, Finding], None]


@contextmanager
def looking(model: Model, terms: Terms) -> Iterator[Look]:
    """While the context is open: a function that runs the network on a batch and adds what it sees to a finding.

    The network runs once per batch and only as far as the layers need it. Layers are looked at while it runs, so
    no layer's output is kept. The first batch is compared with a run of its first image alone.

    Raises DegenerateResult for a network that is random or mixes the images of a batch."""
    layers = [OUTPUT if name == OUTPUT_NAME else name for name in terms.layers]
    thresholds: dict[str, Tensor] = {}
    settled = False

    def keep(name: str, output: Tensor) -> Glance | Shape:
        shape = tuple(output.shape[1:])  # calls before a module's last one may have others
        return glance(output, terms.rank, thresholds[name]) if shape == terms.layers[name] else shape

    def run(inputs: Tensor) -> dict[str, Glance]:
        seen = read(inputs.to(model.device, model.dtype))
        if OUTPUT in seen:
            output = seen.pop(OUTPUT)
            if OUTPUT_NAME in terms.layers:
                seen[OUTPUT_NAME] = keep(OUTPUT_NAME, output)
        for name, found in seen.items():
            if not isinstance(found, Glance):
                raise ShapeError(f"layer {name!r} gives {found} for these images, {terms.layers[name]} for a grey one")
        return seen

    def look(batch: Batch, finding: Finding) -> None:
        nonlocal settled
        finding.unreadable += batch.unreadable
        if batch.inputs is None:
            return
        thresholds.update({name: tally.threshold for name, tally in finding.tallies.items()})
        seen = run(batch.inputs)
        if not settled:
            _refuse_unsettled(seen, run(batch.inputs[:1]), model.dtype)
            settled = True
        for name, tally in finding.tallies.items():
            tally.add(seen[name], batch.numbers, batch.labels)

    with torch.no_grad(), open_reader(model, layers, keep=keep) as read:
        yield look


def _refuse_unsettled(company: dict[str, Glance], alone: dict[str, Glance], dtype: torch.dtype) -> None:
    for name, one in alone.items():
        if len(one.kept) and len(company[name].kept) and int(company[name].kept[0]) == 0:
            check_deterministic(f"layer {name!r}", one.highest[0], company[name].highest[0], dtype)
