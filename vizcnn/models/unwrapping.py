"""Unwrapping: the network inside what others have put around it.

`nn.DataParallel` and `DistributedDataParallel` run copies of a network, `torch.compile` runs machine code made from it.
Hooks on layers inside a compiled network do not fire, or fire for some calls only, and all three put a word of their
own before the name of every layer. So a Model holds what is inside, and where a part of a network is wrapped, the
wrapper is taken out of it while the network is borrowed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from vizcnn.errors import ParameterError
from vizcnn.models.threads import lock_network
from vizcnn.process import Turns

_ORIGINAL = "_torchdynamo_orig_callable"  # where a compiled function has the one that it was made from
_SHARDED = (
    "FullyShardedDataParallel keeps a part of the weights on each process, so no process has a network to look at. "
    "Gather the full state dict, load it into the plain network, and give that"
)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside all wrappers around it; the module itself where there are none. The wrappers stay as they are.

    Raises ParameterError for a network whose weights are shared out among processes."""
    while (inner := _find_inner(module)) is not None:
        if module._forward_hooks or module._forward_pre_hooks:
            raise ParameterError(
                f"the {type(module).__name__} around the network has hooks of its own, which would not run where "
                "layers can be looked at. Register them on the network inside it"
            )
        module = inner
    return module


def _find_inner(module: nn.Module) -> nn.Module | None:
    """The module that this one wraps; None where it is no wrapper."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return module.module  # type: ignore[no-any-return]
    if _is_from("torch._dynamo.eval_frame", "OptimizedModule", module):
        return module._orig_mod  # type: ignore[return-value]
    if _is_from("torch.distributed.fsdp", "FullyShardedDataParallel", module):
        raise ParameterError(_SHARDED)
    return None


def _is_from(home: str, name: str, module: nn.Module) -> bool:
    """Whether a module is of a class whose home takes long to import; who has such a module has imported it."""
    kind = getattr(sys.modules.get(home), name, None)
    return kind is not None and isinstance(module, kind)


def list_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Every module by dotted name, the network itself under an empty one, as if there were no wrappers.

    The order is that of `named_modules`; like there, a module in several places has its first name only."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def walk(name: str, module: nn.Module) -> None:
        module = unwrap(module)
        if id(module) in seen:
            return
        seen.add(id(module))
        found[name] = module
        for own, child in module._modules.items():
            if child is not None:
                walk(f"{name}.{own}" if name else own, child)

    walk("", network)
    return found


def list_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Every parameter and buffer by dotted name, as if there were no wrappers; one in several places only once."""
    found: list[tuple[str, Tensor]] = []
    for kind in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for name, module in list_modules(network).items():
            for own, value in getattr(module, kind).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    found.append((f"{name}.{own}" if name else own, value))
    return found


@contextmanager
def take_off_wrappers(network: nn.Module) -> Iterator[None]:
    """While the context is open, parts of a network are without wrappers, and parts that `Module.compile` has compiled
    run as they were written; afterwards all is as before. Meanwhile other threads that borrow the network wait."""
    if not any(True for _ in _list_wrapped(network)):
        yield
        return
    with lock_network(network):
        wrapped = [*_list_wrapped(network)]
        try:
            for members, name, _, inner in wrapped:
                members[name] = inner
            yield
        finally:
            for members, name, wrapper, _ in wrapped:
                members[name] = wrapper


_STANCE = Turns()
_USERS = 0
_EAGER = ExitStack()


@contextmanager
def run_compiled_code_as_written() -> Iterator[None]:
    """While the context is open, functions that `torch.compile` has compiled, such as a network's own forward, run as
    they were written.

    Torch knows this setting for the whole process only: compiled code of other threads is slower meanwhile."""
    if "torch._dynamo" not in sys.modules:  # importing it takes more than a second, and nobody has compiled anything
        yield
        return
    _count_user(1)
    try:
        yield
    finally:
        _count_user(-1)


def _count_user(user: int) -> None:
    """Switch compiled code off when the first user comes (user = 1), and on again when the last goes (user = -1)."""
    global _USERS
    with _STANCE.take():
        if not _USERS:
            _EAGER.enter_context(torch.compiler.set_stance("force_eager"))
        _USERS += user
        if not _USERS:
            _EAGER.close()


def _list_wrapped(network: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any, Any]]:
    """What of a network's parts is wrapped or compiled: the dictionary that holds it, its name there, itself, and what
    is inside."""
    for module in list_modules(network).values():
        for name, child in module._modules.items():
            if child is not None and _find_inner(child) is not None:
                yield module._modules, name, child, unwrap(child)
        for name, value in vars(module).items():
            if name == "_compiled_call_impl" and value is not None:  # by Module.compile
                yield vars(module), name, value, None
            elif isinstance(value, FunctionType) and hasattr(value, _ORIGINAL):  # network.forward = torch.compile(...)
                yield vars(module), name, value, getattr(value, _ORIGINAL)
