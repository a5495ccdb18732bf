"""Layers: what a network is made of, what that costs, and how far each layer sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils.flop_counter import flop_registry

from vizcnn.models.layers.dryrun import MetaMode, PlainMode, copy_for_dry_run, keep_last, watch_layers
from vizcnn.models.model import Model
from vizcnn.probing.facts import Facts
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Subject
from vizcnn.receptive import ReceptiveField, receptive_fields
from vizcnn.results import Table

COLUMNS = ("layer", "type", "output", "parameters", "MACs", "field [px]", "stride [px]", "offset [px]")


class Layers(Probe[Table]):
    """What is the network made of, what does it cost, and how far does each layer see?

    One row for each layer that holds no others or has parameters of its own, in order of execution:

    output       its output's shape for one image (channels x height x width)
    parameters   its own, not those of layers inside it
    MACs         its own multiply-accumulates for one image, in convolutions and matrix products (half of torch's flops)
    field        side of the receptive field, height x width where they differ, as if the padding were part of the image
    stride       distance between the fields of neighbouring units
    offset       where the first unit's field starts; below zero lies padding

    The table does not depend on the weights, so `-m resnet50` downloads nothing. Receptive fields are exact, see
    vizcnn.receptive_fields.

    Paper: Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill.
    """

    paper: ClassVar[str] = "Araujo, Norris & Sim 2019, doi:10.23915/distill.00021"
    needs_images: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False

    def rehearse(self, facts: Facts) -> str:
        outputs, _ = _run_once(facts.model)
        return f"{len(outputs)} layers run"

    def compute(self, subject: Subject) -> Table:
        model = subject.model
        outputs, macs = _run_once(model)
        fields = receptive_fields(model, progress=subject.progress)
        rows = []
        hidden = tuple(f"{name}.parametrizations." for name, one in model.layers().items() if is_parametrized(one))
        for name, output in outputs.items():
            module = model.layer(name)
            if name.startswith(hidden):  # what makes a layer's weights is a part of that layer
                continue
            if not _list_members(module) or _list_parameters(module):
                rows.append(_make_row(name, module, output, macs, fields.get(name)))
        provenance = subject.provenance(input=tuple(subject.inputs.shape[1:]))
        return Table(provenance, COLUMNS, tuple(rows), _describe_totals(model, outputs, macs))


@dataclass(frozen=True)
class _Macs:
    """Multiply-accumulates: of each layer, by name, with the layers inside it; and of the whole network."""

    layers: dict[str, int]
    total: int

    def count_own(self, name: str, module: nn.Module) -> int:
        """The count of a layer without the layers inside it."""
        return self.layers.get(name, 0) - sum(self._count(f"{name}.{n}", child) for n, child in _list_members(module))

    def _count(self, name: str, module: nn.Module) -> int:
        """The count of a layer with those inside it; of what never runs, as an nn.ModuleList, that of its members."""
        members = (self._count(f"{name}.{n}", child) for n, child in _list_members(module))
        return self.layers[name] if name in self.layers else sum(members)


def _run_once(model: Model) -> tuple[dict[str, Any], _Macs]:
    """Each layer's output for one image, in order of execution, and the multiply-accumulates."""
    images = torch.empty(1, model.input.channels, *model.input.size, dtype=model.dtype, device="meta")  # (1, C, H, W)
    try:
        with MetaMode():
            return _run_and_count(model, images)
    except Exception:  # a network that looks at values while it runs needs real ones
        return _run_and_count(model, torch.zeros_like(images, device=model.device))


def _run_and_count(model: Model, images: Tensor) -> tuple[dict[str, Any], _Macs]:
    outputs, other = dict[str, Any](), copy_for_dry_run(model)
    with (
        other.borrowed() as network,
        torch.no_grad(),
        watch_layers(network, keep_last(outputs, lambda _name, output: [output])),
        _Counting(network) as counter,
    ):
        other(images)
    counts = {name: flops // 2 for name, flops in counter.flops.items()}
    return outputs, _Macs(counts, counts.get("", 0))


class _Counting(PlainMode):
    """While the context is open, adds up the FLOPs of each layer and the layers inside it, by torch's formulas.

    torch's own FlopCounterMode would do, but it imports torch's compiler, which takes longer than all the rest."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.flops = network, Counter[str]()
        self._running: list[str] = []
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for name, module in self.network.named_modules():
            for hook in (module.register_forward_pre_hook(self._begin(name)), module.register_forward_hook(self._end)):
                self._hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _begin(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self._running.append(name)

    def _end(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        self._running.pop()

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            flops = formula(*args, **kwargs, out_val=output)
            for name in {*self._running, ""}:
                self.flops[name] += flops
        return output


def _list_members(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers directly inside a layer, by name, without what makes its weights."""
    parametrized = is_parametrized(module)
    return [(name, one) for name, one in module.named_children() if not (parametrized and name == "parametrizations")]


def _list_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A layer's own parameters, with those from which its weights are made."""
    made = module.parametrizations.parameters() if is_parametrized(module) else ()  # type: ignore[union-attr]
    return [*module.parameters(recurse=False), *made]


def _make_row(name: str, module: nn.Module, output: Any, macs: _Macs, field: ReceptiveField | None) -> tuple[Any, ...]:
    shape = "x".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else type(output).__name__
    parameters = sum(p.numel() for p in _list_parameters(module))
    sees = (field.size, field.stride, field.offset) if field else (None, None, None)
    return name, type_before_parametrizations(module).__name__, shape, parameters, macs.count_own(name, module), *sees


def _describe_totals(model: Model, outputs: dict[str, Any], macs: _Macs) -> tuple[str, ...]:
    """The network's size and cost, and how much of it does not run."""
    total = sum(p.numel() for p in model.network.parameters())
    unused = [module for name, module in model.layers().items() if name not in outputs]
    idle = sum({id(p): p.numel() for module in unused for p in module.parameters(recurse=False)}.values())
    size = "x".join(map(str, (model.input.channels, *model.input.size)))
    summary = f"{model.name}: {total:,} parameters, {macs.total:,} multiply-accumulates for an input of {size}"
    return (summary, f"{idle:,} of the parameters belong to layers that are not called") if idle else (summary,)
