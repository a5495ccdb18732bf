"""Counting: the multiplications and additions that each layer of a network does for one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from vizcnn.models.layers.dryrun import MetaMode, PlainMode, copy_for_dry_run, keep_last, watch_layers
from vizcnn.models.model import Model


@dataclass(frozen=True)
class Cost:
    """What convolutions and matrix products take for one image.

    macs: multiplications, of which padding's zeros are some. additions: that add up the products of each output.
    biases: additions of a bias."""

    macs: int = 0
    additions: int = 0
    biases: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.additions + other.additions, self.biases + other.biases)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.macs - other.macs, self.additions - other.additions, self.biases - other.biases)


@dataclass(frozen=True)
class Costs:
    """The cost of each layer that has run, by name, with the layers inside it; and of the whole network."""

    layers: Mapping[str, Cost]
    total: Cost

    def count_own(self, name: str, module: nn.Module) -> Cost:
        """The cost of a layer without the layers inside it."""
        inside = sum((self._count(f"{name}.{n}", child) for n, child in list_members(module)), Cost())
        return self.layers.get(name, Cost()) - inside

    def _count(self, name: str, module: nn.Module) -> Cost:
        """The cost of a layer with those inside it; of what never runs, as an nn.ModuleList, that of its members."""
        if name in self.layers:
            return self.layers[name]
        return sum((self._count(f"{name}.{n}", child) for n, child in list_members(module)), Cost())


def list_members(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers directly inside a layer, by name, without what makes its weights."""
    parametrized = is_parametrized(module)
    return [(name, one) for name, one in module.named_children() if not (parametrized and name == "parametrizations")]


def run_and_count(model: Model) -> tuple[dict[str, Any], Costs]:
    """Each layer's output for one image, in order of execution, and what all layers cost."""
    images = torch.empty(1, model.input.channels, *model.input.size, dtype=model.dtype, device="meta")  # (1, C, H, W)
    try:
        with MetaMode():
            return _run_and_count(model, images)
    except Exception:  # a network that looks at values while it runs needs real ones
        return _run_and_count(model, torch.zeros_like(images, device=model.device))


def _run_and_count(model: Model, images: Tensor) -> tuple[dict[str, Any], Costs]:
    outputs, other = dict[str, Any](), copy_for_dry_run(model)
    with (
        other.borrowed() as network,
        torch.no_grad(),
        watch_layers(network, keep_last(outputs, lambda _name, output: [output])),
        _Counting(network) as counter,
    ):
        other(images)
    costs = {name: Cost(macs, macs - counter.sums[name], counter.biases[name]) for name, macs in counter.macs.items()}
    return outputs, Costs(costs, costs.get("", Cost()))


class _Counting(PlainMode):
    """While the context is open, adds up what each layer and the layers inside it do, by torch's formulas of FLOPs.

    torch's own FlopCounterMode would do, but it imports torch's compiler, which takes longer than all the rest.

    macs: multiplications. sums: how many sums the products are added up to. biases: how many of these get a bias."""

    def __init__(self, network: nn.Module) -> None:
        # Not at the top: it imports triton, whose bindings complain at exit where a command's start has frozen them.
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.network = network
        self._formulas = flop_registry
        self.macs, self.sums, self.biases = Counter[str](), Counter[str](), Counter[str]()
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
        if (formula := self._formulas.get(func._overloadpacket)) is not None:
            macs = formula(*args, **kwargs, out_val=output) // 2
            sums, biased = _count_sums(func, args, output)
            for name in {*self._running, ""}:
                self.macs[name] += macs
                self.sums[name] += sums
                self.biases[name] += sums if biased else 0
        return output


def _count_sums(func: Any, args: Sequence[Any], output: Any) -> tuple[int, bool]:
    """How many sums of products an operation makes, and whether a bias is added to each."""
    name = func._schema.name.removeprefix("aten::")
    if "attention" in name:  # of queries with keys, and of these with values
        queries, keys = args[0], args[1]
        return output[0].numel() + queries.shape[:-1].numel() * keys.shape[-2], False
    return output.numel(), "addbmm" in name or name == "addmm" or (name.endswith("convolution") and args[2] is not None)
