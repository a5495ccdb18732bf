"""Sites: the places of a network where its units are read, with all weights that lead into them.

A unit is read behind its activation function, not at a bare convolution: only there do zero, dead and removing mean
something. A site is an activation, or the output, with the main path that leads into it, norms folded in, and the
shortcut beside it. What weights read, or a stream of shortcuts, is a site too where no activation stands there. A site
is called after its last weights: `layer2.0.conv2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from vizcnn.graph.geometry import BATCH_NORMS
from vizcnn.graph.paths import LeadIn, Numbers, Path, find_bases, find_lead_in, find_origins, read_weights
from vizcnn.graph.recording import Graph, Shape, Step, Untraceable
from vizcnn.graph.trace import PRODUCTS, NotFollowed, Trace, trace
from vizcnn.models.layers.axes import Axes, find_layers
from vizcnn.models.layers.readings import ACTIVATIONS, OUTPUT_NAME
from vizcnn.models.model import Model
from vizcnn.models.outputs import find_output

_ACTIVATIONS = {"celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "_prelu_kernel"}
_ACTIVATIONS |= {"relu", "sigmoid", "silu", "softplus", "tanh"}
_ENDS = {"_log_softmax", "_softmax", "sigmoid"}  # what may stand behind the last weights
_LINEAR = {"add", "addmm", "convolution", "mm", *BATCH_NORMS}


@dataclass(frozen=True)
class Site:
    """A place where units are read.

    name: of its last weights; of what is read, where there are none. read: what a scan reads, see
    `vizcnn.models.layers.readings`, or `output`. shape: (C, h, w), or (C,).
    value: its number in the graph. axes: the value's own. before: the number of what its activation is applied to.
    activation: its name, "" for none.
    paths: everything that leads into it. bias: float64 (C,), what is added to each unit beside that. missing: why these
    are not known; "" where they are. parameters: of its weights and norms.
    """

    name: str
    read: str
    shape: Shape
    value: int
    axes: Axes
    before: int
    activation: str
    paths: tuple[Path, ...] = ()
    bias: Numbers = field(default_factory=lambda: np.zeros(0))
    missing: str = ""
    parameters: int = 0

    @property
    def is_output(self) -> bool:
        return self.read == OUTPUT_NAME


@dataclass(frozen=True)
class Sites:
    """The sites of a network, in the order in which they run.

    graph: from the image to the output; None for a network that cannot be recorded. missing: why, else "". Its layers
    with weights are then its sites, of which nothing is known but what they give.
    """

    sites: tuple[Site, ...]
    graph: Graph | None
    missing: str = ""

    def source(self, value: int) -> int | None:
        """The position of the site with this value among the sites; None for the image."""
        return self._positions.get(value)

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {site.value: i for i, site in enumerate(self.sites) if site.value > 0}

    def step(self, site: Site) -> Step | None:
        """The activation of a site as a step of the graph; None where it has none."""
        assert self.graph is not None
        made = next(step for step in self.graph.steps if site.value in step.outputs)
        return made if site.activation else None


def find_sites(model: Model, size: tuple[int, int] | None = None) -> Sites:
    """The sites of a network for images of height and width `size`, by default of its own input size.

    Never fails for a network that runs: where it cannot be recorded, `missing` says why, and where the paths into one
    site cannot be followed, the site's own does.

        import vizcnn
        from vizcnn.graph.sites import find_sites

        for site in find_sites(vizcnn.load("tiny")).sites:
            print(site.name, site.read, site.shape, [path.layer for path in site.paths])
    """
    size = size or model.input.size
    if model.is_black_box:
        return Sites((), None, "it is a black box, of which only answers can be seen")
    try:
        found = trace(model, size)
    except Untraceable as reason:
        return Sites(tuple(_list_layers(model, size)), None, str(reason))
    return Sites(tuple(_Search(found).run()), found.graph)


class _Search:
    """The search for the sites of one graph."""

    def __init__(self, found: Trace) -> None:
        self.trace = found
        self.order = {value: i for i, step in enumerate(found.graph.steps) for value in step.outputs}
        self.sites: dict[int, Site] = {}

    def run(self) -> Iterator[Site]:
        """All sites, in the order in which they run, with their paths."""
        self._add_output()
        for step in self.trace.graph.steps:
            if step.name in _ACTIVATIONS:
                self._add(step.outputs[0], step.inputs[0], name_activation(step))
        for value in self._list_linear():
            self._add(value, value, "")
        found = self._follow_all()
        covered = {path.layer for site in found for path in site.paths}
        for value in self._list_uncovered(covered):
            self._add(value, value, "")
        return self._name_all(self._follow_all())

    def _add_output(self) -> None:
        value = self.trace.output
        shape, step = self.trace.graph.shapes[value], self.trace.producers.get(value)
        if shape is None or len(shape) not in (1, 3):
            return
        axes = Axes(tuple(range(len(shape) + 1)), len(shape) - 1)
        activation = step.name.strip("_").replace("_", " ") if step and step.name in _ENDS else ""
        before = step.inputs[0] if step and activation else value
        self.sites[value] = Site("", OUTPUT_NAME, shape, value, axes, before, activation)

    def _add(self, value: int, before: int, activation: str) -> None:
        """Make a value a site, where a layer gives it, or gives what its activation is applied to."""
        names = self.trace.names.get(value)
        if value in self.sites:
            return
        if not names and activation in ACTIVATIONS and (inner := self.trace.names.get(before)):
            layer, read = inner[0], f"{activation}({inner[0]})"
        elif names:
            layer = read = names[0]
        else:
            return
        self.sites[value] = Site("", read, self.trace.shapes[layer], value, self.trace.axes[layer], before, activation)

    def _list_linear(self) -> Iterator[int]:
        """Values that are read by weights without an activation in between, and those that several steps read."""
        for step in self.trace.graph.steps:
            if step.name in ("convolution", *PRODUCTS):
                try:
                    bases = find_bases(self.trace, read_weights(self.trace, step)[0])
                except NotFollowed:
                    continue
                yield from (base for base in bases if self._is_new(base))
        yield from (value for value, uses in self.trace.uses.items() if uses > 1 and self._is_new(value))

    def _is_new(self, value: int) -> bool:
        """Whether a value comes from weights or additions, and not from one site or the image alone."""
        if value == 0 or value in self.sites or self.trace.producers[value].name not in _LINEAR:
            return False
        try:
            find_origins(self.trace, value, self.sites)
        except NotFollowed:
            return self.trace.producers[value].outputs[0] == value
        return False

    def _list_uncovered(self, covered: set[str]) -> Iterator[int]:
        """The values of convolutions and dense layers that are on no path."""
        for step in self.trace.graph.steps:
            names = self.trace.names.get(step.outputs[0])
            if step.name in ("convolution", *PRODUCTS) and names and names[0] not in covered:
                yield step.outputs[0]

    def _follow_all(self) -> list[Site]:
        values = sorted(self.sites, key=lambda value: self.order.get(value, -1))
        return [self._follow(self.sites[value]) for value in values]

    def _follow(self, site: Site) -> Site:
        """A site with what leads into it, or with the reason why that is not known."""
        try:
            if site.axes.is_moved:
                raise NotFollowed("its channels come last")
            found = find_lead_in(self.trace, site.before, self.sites)
        except NotFollowed as reason:
            return replace(site, missing=str(reason))
        return replace(site, paths=_sort(found), bias=found.bias, parameters=found.parameters)

    def _name_all(self, sites: Sequence[Site]) -> Iterator[Site]:
        taken: set[str] = set()
        for site in sites:
            main = site.paths[0].layer if site.paths else self._find_last_weights(site)
            plain = site.read.partition("(")[2].rstrip(")") or site.read
            wished = (main, plain, site.read, *(f"{plain} {n}" for n in range(2, 100)))
            name = next(each for each in wished if each and each not in taken)
            taken.add(name)
            yield replace(site, name=name)

    def _find_last_weights(self, site: Site) -> str:
        """The layer of the last weights in front of a site whose paths are not known; "" where none are met."""
        value, name = site.before, ""
        while value != 0 and (value == site.before or value not in self.sites):
            step = self.trace.producers[value]
            name = self.trace.names.get(value, (name,))[0]
            if step.name in ("convolution", *PRODUCTS):
                return name
            value = step.inputs[0]
        return ""


def _sort(found: LeadIn) -> tuple[Path, ...]:
    """Paths with the main one first: that with the most weights on each unit, of equal ones the last to run."""
    main = max(found.paths, key=lambda path: (path.fan_in, path.value), default=None)
    return tuple(sorted(found.paths, key=lambda path: path is not main))


def name_activation(step: Step) -> str:
    """The name of a step's activation: one of `readings.ACTIVATIONS` where it has no options, else another."""
    name = step.name.strip("_").replace("_", " ")
    if name == "hardtanh":
        return "relu6" if (step.args["min_val"], step.args["max_val"]) == (0, 6) else name
    if name == "gelu":
        return name if step.args["approximate"] == "none" else "gelu of tanh"
    if name == "elu":
        return name if step.args.get("scale", 1) == 1 else "selu"
    return name.removesuffix(" kernel")  # of a PReLU


def _list_layers(model: Model, size: tuple[int, int]) -> Iterator[Site]:
    """The layers with weights, and the output, of a network that cannot be recorded."""
    modules, none = model.layers(), Axes((0, 1), 0)
    for name, layer in find_layers(model, model.grey(size)).items():
        weighted = isinstance(modules[name], nn.modules.conv._ConvNd | nn.Linear)
        if weighted and layer.axes.places in (0, 2):
            shape = tuple(layer.shape[axis] for axis in layer.axes.order[1:])
            own = sum(parameter.numel() for parameter in modules[name].parameters())
            yield Site(name, name, shape, -1, layer.axes, -1, "", parameters=own)
    output = _try_output(model, size)
    if output is not None:
        yield Site(OUTPUT_NAME, OUTPUT_NAME, tuple(output.shape[1:]), -1, none, -1, "")


def _try_output(model: Model, size: tuple[int, int]) -> Tensor | None:
    with model.borrowed():
        output = find_output(model(model.grey(size)), model.output, 1)
    return output if isinstance(output, Tensor) else None
