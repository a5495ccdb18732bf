"""Layers: what a network is made of, what that costs, and how far each layer sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from vizcnn.models.layers.axes import Axes, find_axes
from vizcnn.models.layers.counting import Cost, Costs, list_members, run_and_count
from vizcnn.models.model import Model
from vizcnn.probing.facts import Facts
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.receptive import ReceptiveField, receptive_fields
from vizcnn.results import LayerTable, Stage
from vizcnn.results.table import Cell

COLUMNS = (
    *("layer", "type", "output", "kernel", "stride", "padding", "dilation", "groups", "parameters", "formula"),
    *("MACs", "additions", "of biases", "field [px]", "field stride [px]", "field offset [px]"),
)

_USUAL: tuple[tuple[str, Cell], ...] = (("dilation", (1, 1)), ("groups", 1))
_DETAILS = ("formula", "of biases", "additions", "padding", "groups", "dilation", "stride", "kernel")

_MOST_STAGES = 12  # blocks of the diagram; where every other shape is one, a block stands for each size
_MOST_TERMS = 4  # of a formula: the parameters of a recurrent layer are many


class Layers(Probe[LayerTable]):
    """What is the network made of, what does it cost, and how far does each layer see?

    One row for each layer that holds no others, has parameters of its own, or multiplies beside the layers inside it,
    in order of execution:

        output        shape of its output for one image: channels x height x width
        kernel        of convolutions and pooling, height x width where they
                      differ; so are stride, padding, dilation and groups
        parameters    its own, not those of layers inside it
        formula       their number from their shapes: 3*3*25*50 + 50 is a kernel
                      of 3 x 3, 25 channels in, 50 out, 50 biases
        MACs          multiply-accumulates for one image, in convolutions and
                      matrix products (half of torch's flops)
        additions     that add up these products: a sum of n takes n - 1
        of biases     additions of a bias, one for each output
        field         side of the receptive field in px, height x width where
                      they differ, as if the padding were part of the image
        field stride  distance between the fields of neighbouring units in px
        field offset  where the first unit's field starts, in px; below zero
                      lies padding

    The last row adds up; a line below says what of the network is in no row, or in several. In text and picture,
    columns are left out in which no layer differs from the usual: a dilation of 1, one group; a narrow picture leaves
    out more. The picture has a diagram of the shapes above the table.

    The table does not depend on the weights, so `-m resnet50` downloads nothing. Receptive fields are exact, see
    vizcnn.receptive_fields.

        >>> import vizcnn
        >>> table = vizcnn.Layers()(vizcnn.load("lecture"))
        >>> table.columns[:3], table.rows[0][:3]
        (('layer', 'type', 'output'), ('conv1', 'Conv2d', '25x26x26'))

    Paper: Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill; Dumoulin &
    Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """

    paper: ClassVar[str] = "Araujo, Norris & Sim 2019, doi:10.23915/distill.00021"
    needs_images: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False

    def rehearse(self, facts: Facts) -> str:
        outputs, _ = run_and_count(facts.model)
        return f"{len(outputs)} layers run"

    def compute(self, subject: Subject) -> LayerTable:
        model = subject.model
        outputs, costs = run_and_count(model)
        fields = receptive_fields(model, progress=subject.progress)
        modules = model.layers()
        listed = {name: output for name, output in outputs.items() if _is_listed(modules, name, costs)}
        rows = [_make_row(name, modules[name], output, costs, fields.get(name)) for name, output in listed.items()]
        return LayerTable(
            subject.provenance(input=tuple(subject.inputs.shape[1:])),
            COLUMNS,
            tuple(rows),
            (*_describe_totals(model, outputs, costs), *_describe_rest(model, outputs, listed, costs)),
            _add_up(rows),
            _USUAL,
            tuple(_list_stages(model, listed)),
            _DETAILS,
        )


def _is_listed(modules: Mapping[str, nn.Module], name: str, costs: Costs) -> bool:
    """Whether a layer has a row of its own. What makes a layer's weights is a part of that layer."""
    parts = name.split(".")
    if "parametrizations" in parts and is_parametrized(modules[".".join(parts[: parts.index("parametrizations")])]):
        return False
    module = modules[name]
    return not list_members(module) or bool(_list_parameters(module)) or costs.count_own(name, module).macs > 0


def _list_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A layer's own parameters, with those from which its weights are made."""
    made = module.parametrizations.parameters() if is_parametrized(module) else ()  # type: ignore[union-attr]
    return [*module.parameters(recurse=False), *made]


def _make_row(
    name: str, module: nn.Module, output: Any, costs: Costs, field: ReceptiveField | None
) -> tuple[Cell, ...]:
    shape = "x".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else type(output).__name__
    parameters, cost = _list_parameters(module), costs.count_own(name, module)
    return (
        name,
        type_before_parametrizations(module).__name__,
        shape,
        *(_read_window(module, key) for key in ("kernel_size", "stride", "padding", "dilation")),
        groups if isinstance(groups := getattr(module, "groups", None), int) else None,
        sum(p.numel() for p in parameters),
        _write_formula(module, parameters),
        *(cost.macs, cost.additions, cost.biases),
        *((field.size, field.stride, field.offset) if field else (None, None, None)),
    )


def _read_window(module: nn.Module, key: str) -> Cell:
    """A number of a convolution's or a pooling's window, (down, across); a word such as `same`; None without one."""
    found = getattr(module, key, None) if hasattr(module, "kernel_size") else None
    if isinstance(found, int):
        return found, found
    if isinstance(found, tuple) and all(isinstance(each, int) for each in found):
        return found
    return found if isinstance(found, str) else None


def _write_formula(module: nn.Module, parameters: Sequence[nn.Parameter]) -> str:
    """The number of parameters from their shapes: places of the kernel, channels in, channels out."""
    if not 0 < len(parameters) <= _MOST_TERMS:
        return ""
    return " + ".join("*".join(map(str, _list_sides(module, each))) or "1" for each in parameters)


def _list_sides(module: nn.Module, parameter: nn.Parameter) -> list[int]:
    first, *second = parameter.shape[:2]
    channels = [*second, first]
    if isinstance(module, nn.modules.conv._ConvTransposeNd) and second:  # channels in, channels out / groups
        channels = [first // module.groups, second[0] * module.groups]
    return [*parameter.shape[2:], *channels]


def _add_up(rows: Sequence[tuple[Cell, ...]]) -> tuple[Cell, ...]:
    """The sums of parameters, multiplications and additions; "" in other columns."""
    sums = {
        name: sum(cell for row in rows if isinstance(cell := row[COLUMNS.index(name)], int))
        for name in ("parameters", "MACs", "additions", "of biases")
    }
    return "sum", *(sums.get(name, "") for name in COLUMNS[1:])


def _list_stages(model: Model, outputs: dict[str, Any]) -> Iterator[Stage]:
    """The shapes through the network: the image's, and one for layers that follow each other with outputs of one shape,
    or of one size where that would be too many."""
    axes, modules = find_axes(model, model.grey(), [*outputs]), model.layers()
    shapes = [(name, _read_shape(output, axes[name])) for name, output in outputs.items() if name in axes]
    known = [("input", (model.input.channels, *model.input.size)), *((n, s) for n, s in shapes if s)]
    stages = [[*group] for _, group in groupby(known, lambda each: each[1])]
    if len(stages) > _MOST_STAGES:
        stages = [[*group] for _, group in groupby(known, lambda each: each[1][1:])]
    for members in stages[: 2 * _MOST_STAGES]:
        weighted = [name for name, _ in members if name != "input" and _list_parameters(modules[name])]
        channels = [shape[0] for _, shape in members]
        name = weighted[0] if weighted and members[0][0] != "input" else members[0][0]
        yield Stage(name, (min(channels), max(channels)), members[0][1][1:], len(weighted))


def _read_shape(output: Any, axes: Axes) -> tuple[int, ...]:
    """The channels, then the height and width or the number of tokens; nothing where these are not known."""
    if not isinstance(output, Tensor) or axes.places is None or len(axes.order) != output.dim():
        return ()
    return tuple(output.shape[axis] for axis in axes.order[1:])


def _describe_totals(model: Model, outputs: dict[str, Any], costs: Costs) -> tuple[str, ...]:
    """The network's size and cost, and how much of it does not run."""
    total = sum(p.numel() for p in model.network.parameters())
    unused = [module for name, module in model.layers().items() if name not in outputs]
    idle = sum({id(p): p.numel() for module in unused for p in module.parameters(recurse=False)}.values())
    size = "x".join(map(str, (model.input.channels, *model.input.size)))
    summary = f"{model.name}: {total:,} parameters, {_describe_cost(costs.total)} for an input of {size}"
    return (summary, f"{idle:,} of the parameters belong to layers that are not called") if idle else (summary,)


def _describe_rest(model: Model, outputs: Mapping[str, Any], listed: Mapping[str, Any], costs: Costs) -> Iterator[str]:
    """Why the sums of the rows are not those of the network, where they are not."""
    modules = model.layers()
    rows = [parameter for name in listed for parameter in _list_parameters(modules[name])]
    again = sum(p.numel() for p in rows) - sum({id(p): p.numel() for p in rows}.values())
    if again:
        yield f"{again:,} of the sum's parameters are shared by layers, and are in the row of each"
    placed = {id(p) for p in rows} | {
        id(p) for name, module in modules.items() if name not in outputs for p in module.parameters(recurse=False)
    }
    own = sum(p.numel() for p in model.network.parameters() if id(p) not in placed)
    macs = costs.total.macs - sum(costs.count_own(name, modules[name]).macs for name in listed)
    rest = [f"{own:,} of the parameters"] * (own > 0) + [f"{macs:,} of the multiply-accumulates"] * (macs > 0)
    if rest:
        yield f"{' and '.join(rest)} are the network's own, in none of its layers, and in no row"


def _describe_cost(cost: Cost) -> str:
    plain, biased = cost.additions, cost.additions + cost.biases
    with_biases = f", {biased:,} with those of biases" if cost.biases else ""
    return f"{cost.macs:,} multiply-accumulates ({plain:,} additions{with_biases})"
