"""Dry runs: what a network's layers would do to an input, without computing a number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vizcnn.errors import ParameterError
from vizcnn.models.model import Model

See = Callable[[str, Any], None]
"""Told a layer's dotted name and its output, each time that the layer has run."""

_UNTAGGED = {"_prelu_kernel", "alias", "celu", "clone", "detach", "elu", "hardsigmoid", "hardswish", "hardtanh"}
_UNTAGGED |= {"leaky_relu", "lift_fresh", "mish", "prelu", "selu"}
"""Operations, also in place, that torch does not tag as element by element, or only its later versions do."""


class OnMeta(TorchDispatchMode):
    """While the context is open, a network given a meta tensor runs on meta tensors, its own weights left alone.

    Meta tensors have a shape and a dtype but no values: such a run takes milliseconds, whatever the network.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if len({t.is_meta for t in tensors_in(args, kwargs)}) == 2:
            args, kwargs = with_tensors((args, kwargs), lambda t: t.to("meta"))
        return self.ran(func, args, kwargs)

    def ran(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The outcome of one operation of the network."""
        quick = _quickly(func, args)
        return func(*args, **kwargs) if quick is None else quick


def _quickly(func: Any, args: Sequence[Any]) -> Any:
    """The outcome on meta tensors of what is frequent, keeps its input's shape and takes torch long to work out."""
    if not (args and isinstance(args[0], Tensor) and args[0].is_meta):
        return None
    if func is torch.ops.aten.native_batch_norm.default and not args[5]:
        return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
    in_place = func._schema.is_mutable and elementwise(func) and len(func._schema.returns) == 1
    return args[0] if in_place else None


def elementwise(func: Any) -> bool:
    """Whether an ATen operation makes each element of its output of those at the same place."""
    return torch.Tag.pointwise in func.tags or func._schema.name.removeprefix("aten::").rstrip("_") in _UNTAGGED


def twin(model: Model) -> Model:
    """A Model whose network shares the weights and nothing else, so that a run leaves no trace on the original.

    A network may keep constants from one run to the next; without a twin a dry run would leave it meta tensors.
    Raises ParameterError for a network that cannot be copied."""
    memory: dict[int, Any] = {id(p): p for p in model.network.parameters()}
    for module in model.network.modules():
        memory |= {id(value): value for value in tensors_in(vars(module))}
        memory |= {id(value): type(value)() for value in vars(module).values() if _is_empty(value)}
    other = copy(model)
    try:
        other.network = deepcopy(model.network, memory)
    except Exception as error:
        raise ParameterError(
            f"{model.name} holds something that cannot be copied ({error}), and its shapes are found out on a copy. "
            "Take locks, open files and the like off the network first"
        ) from error
    return other


def twin_or_itself(model: Model) -> Model:
    """A copy where there can be one: for runs with numbers, which leave no traces but the network's usual ones."""
    try:
        return twin(model)
    except ParameterError:
        return model


def _is_empty(value: Any) -> bool:
    """Whether a value is an empty dictionary, of which modules have many, and which are slow to copy."""
    return type(value) in (dict, OrderedDict) and not value


def tensors_in(*trees: Any) -> list[Tensor]:
    """The tensors among lists, tuples and dictionaries, which is all that arguments of ATen's operations consist of."""
    found: list[Tensor] = []
    for tree in trees:
        if isinstance(tree, Tensor):
            found.append(tree)
        elif isinstance(tree, list | tuple):
            found += tensors_in(*tree)
        elif isinstance(tree, dict):
            found += tensors_in(*tree.values())
    return found


def with_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same lists, tuples and dictionaries with other tensors in them."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, list | tuple):
        return type(tree)([with_tensors(value, change) for value in tree])
    return {k: with_tensors(v, change) for k, v in tree.items()} if isinstance(tree, dict) else tree


def by_name(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of an operation, in the order of its schema, defaults included."""
    declared = func._schema.arguments
    given = {a.name: value for a, value in zip(declared, args, strict=False)} | kwargs
    return {a.name: given.get(a.name, a.default_value) for a in declared}


@contextmanager
def watched(network: nn.Module, see: See) -> Iterator[None]:
    """While the context is open, `see` is told of every module inside the network that has run.

    Unlike `capture` it takes any output and keeps none, so it can watch layers that give tuples. It does not count what
    other threads run."""
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name:
                hooks.callback(module.register_forward_hook(_teller(name, see)).remove)
        yield


def _teller(name: str, see: See) -> Any:
    thread = threading.get_ident()

    def tell(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            see(name, output)

    return tell


@contextmanager
def following(model: Model, see: See, mode: OnMeta) -> Iterator[None]:
    """While the context is open, the model can run, without gradients: the mode meets each operation, and `see` is told
    of every module that has run."""
    with (
        torch.inference_mode(False),  # in which operations come in larger pieces
        torch.no_grad(),
        torch.overrides.BaseTorchFunctionMode(),  # lets no module do its layers' work in one piece, past their hooks
        model.borrowed() as network,
        watched(network, see),
        mode,
    ):
        yield
