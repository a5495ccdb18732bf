"""TopImages: the images of a data set that excite a channel most, and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from vizcnn.ascent import Objective, find_recipe, optimize
from vizcnn.errors import DegenerateResult, Interrupted, ParameterError, did_you_mean
from vizcnn.inputs.photo import Pixels, select_channels
from vizcnn.models.borrowing import borrow
from vizcnn.models.layers.kernels import find_used_kernels, reads_image
from vizcnn.models.model import Model
from vizcnn.models.targets import Target, parse_targets
from vizcnn.probing.facts import Facts, require_answer
from vizcnn.probing.parsing import parse_names
from vizcnn.probing.probe import Probe, param
from vizcnn.probing.subject import Subject
from vizcnn.results import Excited, Exemplars, Provenance, make_exemplar
from vizcnn.results.exemplars import RANKED_BY, Gaps, draw_kernel
from vizcnn.scanning import (
    MAX_TOP,
    OUTPUT_NAME,
    AnyIndex,
    Index,
    Maps,
    MemoryIndex,
    find_best,
    find_channel,
    name_layer,
    read_maps,
    refuse_other_maps,
    refuse_other_network,
    require_unit,
    scan_in_memory,
    sees_most,
    select_layers,
)
from vizcnn.scanning.observe import check_layers

_CHANNELS = 4  # how many are shown where no target was given
_NAMED = 5  # targets that a message names
_BESIDE = ("filter", "maximize")


class TopImages(Probe[Exemplars]):
    """Which images excite this channel most, and where in them?

    Each channel gets a row of photographs, best first: the box is what its strongest unit can see, exactly, and below
    is that part alone. The number is the value that images are ranked by. All images are looked at; of equal ones the
    first comes first. Photographs show what a channel responds to among these images, not what it is for: look for
    what the crops share, and for what the next best ones lack.

    In layers whose units see more than half of what the network sees, a box would say little. There the photograph is
    dimmed where the channel does not respond, and below is what is around its strongest place:

        level = (mean + max(A)) / 2        responds = enlarge(A) > level

    with A the channel's activation map of that image (h, w), enlarged bilinearly (align_corners=False) to what the
    network saw, and its mean over all images and places. Edges are good to about one place of the layer. A thin line
    still shows what the strongest unit sees, where that is not everything.

    Targets are channels (LAYER:CHANNEL, LAYER:FIRST-LAST) or classes; without any, four of the last convolution.
    For many channels or many images scan once, `vizcnn scan`, and ask the index: `--index DIR`, or in Python
    `TopImages().answer(Index.open(DIR), target)`. An index keeps no maps: for layers whose units see most of an image
    name the network too, with -m, or `answer(index, target, model)`.

        >>> import vizcnn
        >>> photos = [vizcnn.open_photo("sample:grace_hopper").pixels[i:] for i in (0, 40, 80)]  # cut at the top
        >>> result = vizcnn.TopImages(count=2)(vizcnn.load("tiny"), photos, target="layer2:27")
        >>> len(result.rows)
        1

    Paper: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks"; Girshick et al. 2014,
    arXiv:1311.2524, section 3.1; Bau et al. 2017, arXiv:1704.05796, for masks. Raises TargetError, LayerNotFound,
    ImageError.
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
        shapes = select_layers(model, model.input.size, None)
        maps = {name: shape for name, shape in shapes.items() if len(shape) == 3 and name != OUTPUT_NAME}
        if not maps:
            return [0]
        name, shape = list(maps.items())[-1]
        return [f"{name}:{channel}" for channel in range(min(_CHANNELS, shape[0]))]

    def rehearse(self, facts: Facts) -> str:
        asked = require_answer(facts) if facts.given else self.default_targets(facts.model)
        units = [require_unit(one.resolved(facts.model)) for one in parse_targets(asked)]
        layers = list(dict.fromkeys(map(name_layer, units)))
        if facts.given:
            select_layers(facts.model, facts.model.input.size, layers)
        check_layers(facts.model, facts.image, layers)
        return ", ".join(map(str, units))

    def compute(self, subject: Subject) -> Exemplars:
        assert subject.dataset is not None
        layers = list(dict.fromkeys(name_layer(require_unit(one)) for one in subject.targets[0]))
        finding = scan_in_memory(subject.model, subject.dataset, layers, self.count, self.rank, subject.progress)
        index = MemoryIndex(subject.model, subject.dataset, finding, progress=subject.progress)
        provenance = subject.provenance(dataset=subject.dataset.where, pictures=len(subject.dataset))
        return self._show(index, subject.model, subject.targets[0], provenance, subject.progress)

    def answer(
        self, index: Index, target: Any, model: Model | None = None, *, seed: int = 0, progress: bool = True
    ) -> Exemplars:
        """The same from the index of a scan. Images are ranked and labelled as in that scan.

        model: the network that was scanned. Without it the photographs are shown with boxes alone, also where a unit
            sees most of them, and nothing stands beside them. seed: for pictures that stand beside.

        Raises ParameterError for a rank other than the scan's, for labels, for pictures beside the photographs without
        a model, and for another model."""
        if self.labels is not None:
            raise ParameterError("an index has the labels that its scan was given. Leave labels out")
        if self.beside and model is None:
            raise ParameterError("an index holds no network to draw. Name it too (-m, model=...), or leave beside out")
        targets, rank = [_name_class(index, one) for one in parse_targets(target)], index.rank
        if self.rank not in ("max", rank):  # max is the default, so nobody may have asked for it
            raise ParameterError(f"the images of {index.folder} are ranked by their {rank}, not their {self.rank}")
        options = replace(self, rank=rank).write_options()
        provenance = index.provenance(self.name(), options, self.paper, targets)
        if model is None:
            return self._make_result(index, targets, rank, provenance, None)
        with borrow(model, type(self).__name__):
            refuse_other_network(index, model.weights_sha256())
            result = self._show(index, model, targets, replace(provenance, seed=seed), progress)
        if result.partial:
            raise Interrupted(result)
        return result

    def _show(
        self, index: AnyIndex, model: Model, targets: Sequence[Target], provenance: Provenance, progress: bool
    ) -> Exemplars:
        """The rows of these targets, with all that the network tells of them. It must be borrowed already."""
        units, rank = [require_unit(one) for one in targets], provenance.options["rank"]
        try:
            maps = read_maps(index, model, units, self.count, progress=progress)
        except KeyboardInterrupt:
            result = self._make_result(index, targets, rank, provenance, {})
            return _stop(result, "stopped before it was seen where in the images the channels respond")
        if isinstance(index, Index):
            refuse_other_maps(index, units, self.count, maps)
        result = self._make_result(index, targets, rank, provenance, maps)
        return self._put_beside(result, model, targets, progress)

    def _put_beside(self, result: Exemplars, model: Model, targets: Sequence[Target], progress: bool) -> Exemplars:
        """The result with a kernel or an optimised picture beside each row's photographs, as the options say."""
        if not self.beside:
            return result
        try:
            filters = _draw_filters(model, targets) if "filter" in self.beside else {}
            seed = result.provenance.seed
            optimised = _optimize_pictures(model, targets, seed, progress) if "maximize" in self.beside else {}
        except KeyboardInterrupt:
            return _stop(result, "stopped before what stands beside was made")
        sources = (("filter", filters), ("maximize", optimised))
        pictures = [tuple((name, found[one]) for name, found in sources if one in found) for one in targets]
        rows = tuple(replace(row, beside=beside) for row, beside in zip(result.rows, pictures, strict=True))
        return replace(result, rows=rows)

    def _make_result(
        self, index: AnyIndex, targets: Sequence[Target], rank: str, provenance: Provenance, maps: Maps | None
    ) -> Exemplars:
        """The rows of these targets. maps: of the network; None where it is not at hand."""
        rows = tuple(self._make_row(index, one, maps or {}) for one in targets)
        if not any(row.exemplars for row in rows):
            named = ", ".join(map(str, targets[:_NAMED])) + f" and {len(targets) - _NAMED} more" * (
                len(targets) > _NAMED
            )
            raise DegenerateResult(f"no image excites any of {named}. Dead units?")
        layers = list(dict.fromkeys(name_layer(require_unit(one)) for one in targets))
        notes = [*_find_gaps(index, layers, self.count).describe()]
        if maps is None and (vague := [layer for layer in layers if sees_most(index, layer)]):
            notes.append(_describe_vague(vague))
        return Exemplars(provenance, rows, RANKED_BY[rank], tuple(notes))

    def _make_row(self, index: AnyIndex, target: Target, maps: Maps) -> Excited:
        unit = require_unit(target)
        exemplars = tuple(
            make_exemplar(one.number, one.name, one.label, one.value, one.at, one.photo, one.seen, one.box, one.mask)
            for one in find_best(index, unit, self.count, maps)
        )
        return Excited(str(target), exemplars, index.tally(name_layer(unit)).statistics(find_channel(index, unit)))


def _stop(result: Exemplars, note: str) -> Exemplars:
    """What is left of a result after Ctrl-C."""
    return replace(result, notes=(*result.notes, note), partial=True)


def _describe_vague(layers: Sequence[str]) -> str:
    """Say that boxes are all that there is to show, though these layers' units see most of an image."""
    named = f"layer {layers[0]}" if len(layers) == 1 else f"{len(layers)} of the layers"
    return f"units of {named} see most of an image. Where in it they respond, the network tells: -m MODEL, or model=..."


def _draw_filters(model: Model, targets: Sequence[Target]) -> dict[Target, Pixels]:
    """A picture of the kernel of each target that is a channel of the convolution that reads the image."""
    units = {target: require_unit(target) for target in targets}
    pictures: dict[Target, Pixels] = {}
    for layer in {unit.layer for unit in units.values() if unit.layer and reads_image(model, unit.layer)}:
        kernels = find_used_kernels(model, layer).float().cpu().permute(0, 2, 3, 1).numpy()  # (K, h, w, C)
        channels = {target: int(unit.channel) for target, unit in units.items() if unit.layer == layer}
        pictures |= {
            target: draw_kernel(select_channels(kernels[channel], model.input.display))
            for target, channel in channels.items()
        }
    return pictures


def _optimize_pictures(model: Model, targets: Sequence[Target], seed: int, progress: bool) -> dict[Target, Pixels]:
    """A picture for each target, by the default recipe of the probe `maximize`. Raises KeyboardInterrupt."""
    different = list(dict.fromkeys(targets))
    objectives = [Objective(target) for target in different]
    outcome = optimize(model, objectives, find_recipe("robust"), seed=seed, label="maximize", progress=progress)
    if not outcome.finished:
        raise KeyboardInterrupt
    pictures = outcome.pictures.permute(0, 2, 3, 1).numpy().astype("float32")  # (K, H, W, C)
    return dict(zip(different, select_channels(pictures, model.input.display), strict=True))


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
