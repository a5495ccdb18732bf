"""TopImages: the images of a data set that excite a channel most, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal

from vizcnn.ascent import Objective, find_recipe, optimize
from vizcnn.errors import DegenerateResult, ParameterError, did_you_mean
from vizcnn.models.layers.kernels import find_used_kernels, reads_image
from vizcnn.models.model import Model
from vizcnn.models.targets import Target, parse_targets
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Excited, Exemplars, Provenance, make_exemplar
from vizcnn.results.exemplars import RANKED_BY, Gaps, draw_kernel
from vizcnn.results.photos import Pixels
from vizcnn.scanning import (
    MAX_TOP,
    AnyIndex,
    Index,
    MemoryIndex,
    find_best,
    find_channel,
    name_layer,
    require_unit,
    scan_in_memory,
    select_layers,
)

_CHANNELS = 4  # how many are shown where no target was given
_BESIDE = ("filter", "maximize")


class TopImages(Probe[Exemplars]):
    """Which images excite this channel most, and where in them?

    Each channel gets a row of photographs, best first: the box is what its strongest unit can see, exactly, and below
    is that part alone. The number is the value that images are ranked by. All images are looked at; of equal ones the
    first comes first. Photographs show what a channel responds to among these images, not what it is for: look for
    what the crops share, and for what the next best ones lack.

    Targets are channels (LAYER:CHANNEL, LAYER:FIRST-LAST) or classes; without any, four of the last convolution.
    For many channels or many images scan once, `vizcnn scan`, and ask the index: `--index DIR`, or in Python
    `TopImages().answer(Index.open(DIR), target)`.

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks"; Girshick et al. 2014,
    arXiv:1311.2524, section 3.1. Raises TargetError, LayerNotFound, ImageError.
    """

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    streams: ClassVar[bool] = True

    count: int = param(9, "Images for each channel.", min=1, max=MAX_TOP)
    rank: Literal["max", "mean", "sum"] = param(
        "max", "What images are ranked by: a channel's maximum over positions, its mean or its sum."
    )
    beside: tuple[str, ...] | None = param(
        None,
        "What else to show at the left of each channel, with commas: filter, its kernel where that reads the image; "
        "maximize, a picture optimised for it.",
        parse=parse_names,
    )
    labels: str | None = param(
        None, "A file of lines NAME,CLASS. Default: the sub-folders, or what a torch Dataset says."
    )

    def check(self) -> None:
        for name in self.beside or ():
            if name not in _BESIDE:
                near = did_you_mean(name, _BESIDE)
                raise ParameterError(f"beside the photographs stand {' and '.join(_BESIDE)}, got {name!r}.{near}")

    def labels_from(self) -> str | None:
        return self.labels

    def default_targets(self, model: Model) -> Sequence[Any]:
        maps = {name: shape for name, shape in select_layers(model, model.input.size, None).items() if len(shape) == 3}
        if not maps:
            return [0]
        name, shape = list(maps.items())[-1]
        return [f"{name}:{channel}" for channel in range(min(_CHANNELS, shape[0]))]

    def compute(self, subject: Subject) -> Exemplars:
        assert subject.dataset is not None
        layers = list(dict.fromkeys(name_layer(require_unit(one)) for one in subject.targets[0]))
        finding = scan_in_memory(subject.model, subject.dataset, layers, self.count, self.rank, subject.progress)
        index = MemoryIndex(subject.model, subject.dataset, finding, progress=subject.progress)
        provenance = subject.provenance(dataset=subject.dataset.where, pictures=len(subject.dataset))
        result = self._make_result(index, subject.targets[0], self.rank, provenance)
        if not self.beside:
            return result
        try:
            pictures = list(self._make_pictures(subject))
        except KeyboardInterrupt:
            return replace(result, notes=(*result.notes, "stopped before what stands beside was made"), partial=True)
        rows = tuple(replace(row, beside=beside) for row, beside in zip(result.rows, pictures, strict=True))
        return replace(result, rows=rows)

    def answer(self, index: Index, target: Any) -> Exemplars:
        """The same from the index of a scan, without the network. Images are ranked and labelled as in that scan.

        Raises ParameterError for a rank other than the scan's, for labels, and for pictures beside the photographs."""
        if self.labels is not None:
            raise ParameterError("an index has the labels that its scan was given. Leave labels out")
        if self.beside:
            raise ParameterError("an index holds no network to draw. Leave beside out, or see: vizcnn maximize --crops")
        targets, rank = [_name_class(index, one) for one in parse_targets(target)], index.rank
        if self.rank not in ("max", rank):  # max is the default, so nobody may have asked for it
            raise ParameterError(f"the images of {index.folder} are ranked by their {rank}, not their {self.rank}")
        options = asdict(replace(self, rank=rank))
        return self._make_result(index, targets, rank, index.provenance(self.name(), options, self.paper, targets))

    def _make_pictures(self, subject: Subject) -> Iterator[tuple[tuple[str, Pixels], ...]]:
        """The pictures beside each target's photographs, with their names."""
        beside = self.beside or ()
        filters = _draw_filters(subject) if "filter" in beside else {}
        optimised = _optimize_pictures(subject) if "maximize" in beside else {}
        for target in subject.targets[0]:
            sources = (("filter", filters), ("maximize", optimised))
            yield tuple((name, pictures[target]) for name, pictures in sources if target in pictures)

    def _make_result(self, index: AnyIndex, targets: Sequence[Target], rank: str, provenance: Provenance) -> Exemplars:
        rows = tuple(self._make_row(index, one) for one in targets)
        if not any(row.exemplars for row in rows):
            raise DegenerateResult(f"no image excites any of {', '.join(map(str, targets))}. Dead units?")
        layers = dict.fromkeys(name_layer(require_unit(one)) for one in targets)
        return Exemplars(provenance, rows, RANKED_BY[rank], tuple(_find_gaps(index, layers, self.count).describe()))

    def _make_row(self, index: AnyIndex, target: Target) -> Excited:
        unit = require_unit(target)
        exemplars = tuple(
            make_exemplar(one.number, one.name, one.label, one.value, one.at, one.photo, one.seen, one.box)
            for one in find_best(index, unit, self.count)
        )
        return Excited(str(target), exemplars, index.tally(name_layer(unit)).statistics(find_channel(index, unit)))


def _draw_filters(subject: Subject) -> dict[Target, Pixels]:
    """A picture of the kernel of each target that is a channel of the convolution that reads the image."""
    model, units = subject.model, {target: require_unit(target) for target in subject.targets[0]}
    pictures: dict[Target, Pixels] = {}
    for layer in {unit.layer for unit in units.values() if unit.layer and reads_image(model, unit.layer)}:
        kernels = find_used_kernels(model, layer).float().cpu().permute(0, 2, 3, 1).numpy()  # (K, h, w, C)
        channels = {target: int(unit.channel) for target, unit in units.items() if unit.layer == layer}
        pictures |= {target: draw_kernel(kernels[channel]) for target, channel in channels.items()}
    return pictures


def _optimize_pictures(subject: Subject) -> dict[Target, Pixels]:
    """A picture for each target, by the default recipe of the probe `maximize`. Raises KeyboardInterrupt."""
    targets = list(dict.fromkeys(subject.targets[0]))
    objectives = [Objective(target) for target in targets]
    outcome = optimize(
        subject.model, objectives, find_recipe("robust"), seed=subject.seed, label="maximize", progress=subject.progress
    )
    if not outcome.finished:
        raise KeyboardInterrupt
    pictures = outcome.pictures.permute(0, 2, 3, 1).numpy().astype("float32")  # (K, H, W, C)
    return dict(zip(targets, pictures, strict=True))


def _name_class(index: Index, target: Target) -> Target:
    """The target; a class with its number and name, as a model would resolve it."""
    unit = require_unit(target)
    if unit.layer:
        return target
    number = find_channel(index, unit)
    label = index.classes[number] if index.classes else str(number)
    return Target(((1.0, replace(unit, channel=number, label=label)),))


def _find_gaps(index: AnyIndex, layers: Iterable[str], asked: int) -> Gaps:
    """What is missing: images that could not be used, fewer of them than were asked for, parts not scanned yet."""
    tallies = {layer: index.tally(layer) for layer in layers}
    return Gaps(
        images=len(index.images),
        unreadable=tuple(index.unreadable),
        not_finite={layer: int(tally.counted[1]) for layer, tally in tallies.items()},
        kept={layer: tally.top for layer, tally in tallies.items() if len(tally.values) == tally.top},
        asked=asked,
        shards=(len(index.pending()), len(index.shards)) if isinstance(index, Index) else (0, 0),
    )
