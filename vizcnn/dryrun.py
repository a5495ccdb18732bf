"""Dry runs: what a network's layers would do to an input, without computing a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from vizcnn.errors import ParameterError
from vizcnn.model import Model

See = Callable[[str, Any], None]
"""Told a layer's dotted name and its output, each time that the layer has run."""


class OnMeta(TorchDispatchMode):
    """While the context is open, a network given a meta tensor runs on meta tensors, its own weights left alone.

    Meta tensors have a shape and a dtype but no values: such a run takes milliseconds, whatever the network.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(t.is_meta for t in tensors_in(args, kwargs)):
            args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
        return self.ran(func, args, kwargs)

    def ran(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The outcome of one operation of the network."""
        return func(*args, **kwargs)


def twin(model: Model) -> Model:
    """A Model whose network shares the weights and nothing else, so that a run leaves no trace on the original.

    A network may keep constants from one run to the next; without a twin a dry run would leave it meta tensors.
    Raises ParameterError for a network that cannot be copied."""
    memory: dict[int, Any] = {id(p): p for p in model.network.parameters()}
    for module in model.network.modules():
        memory |= {id(value): value for value in tensors_in(vars(module))}
    other = copy(model)
    try:
        other.network = deepcopy(model.network, memory)
    except Exception as error:
        raise ParameterError(
            f"{model.name} holds something that cannot be copied ({error}), and its shapes are found out on a copy. "
            "Take locks, open files and the like off the network first"
        ) from error
    return other


def tensors_in(*trees: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(trees) if isinstance(leaf, Tensor)]


@contextmanager
def watched(network: nn.Module, see: See) -> Iterator[None]:
    """While the context is open, `see` is told of every module inside the network that has run.

    Unlike `capture` it takes any output and keeps none, so it can watch layers that give tuples."""
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name:
                hooks.callback(module.register_forward_hook(_teller(name, see)).remove)
        yield


def _teller(name: str, see: See) -> Any:
    def tell(_module: nn.Module, _inputs: Any, output: Any) -> None:
        see(name, output)

    return tell
