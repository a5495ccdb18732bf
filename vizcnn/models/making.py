"""Making: what makes a network beside its weights, as one digest.

With the same weights a network says something else when a ReLU becomes a sigmoid, a forward is edited, or a number that
a layer was made with is another one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.fx import GraphModule

_LIBRARIES = {"builtins", "torch", "torchvision"}  # whose code a version names, and few change it
_SOURCES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of classes and functions, as they were when first seen


def digest_making(network: nn.Module, labels: Sequence[str] | None, head: str | None) -> str:
    """Digest of how a network is made: its layers as they print themselves, the plain values that they hold, the source
    code, where there is any, of those that are not torch's or torchvision's own and of functions put into them, and
    what its outputs mean.

    Not of functions that this code calls elsewhere, nor of what modules hold inside other objects."""
    parts = [json.dumps([labels, head]), _print(network)]
    for name, module in network.named_modules():
        parts += [name, *_list_values(module), *map(_read_source, _list_code(module))]
        if isinstance(module, GraphModule):  # its code was generated, and is nowhere else
            parts.append(module.code)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


def _print(value: Any) -> str:
    """How a value prints itself, without addresses in memory, which are others in every process."""
    try:
        return re.sub(r"\b0x[0-9a-fA-F]+", "0x", repr(value))
    except Exception:  # of a person's own class
        return type(value).__qualname__


def _list_values(module: nn.Module) -> Iterator[str]:
    """The plain values that a module holds, with their names. Its mode is none of them: probes choose that."""
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name != "training" and _is_plain(value):
            yield f"{name}={value!r}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | complex | str | None)


def _list_code(module: nn.Module) -> Iterator[Callable[..., Any] | type]:
    """What of a module's code is not a library's: its classes, hooks, and functions that were put into it."""
    yield from (kind for kind in type(module).__mro__ if kind.__module__.partition(".")[0] not in _LIBRARIES)
    hooks = module._forward_pre_hooks.values(), module._forward_hooks.values()
    for value in chain(vars(module).values(), *hooks):
        if isinstance(value, FunctionType | MethodType):
            yield getattr(value, "__func__", value)


def _read_source(code: Callable[..., Any] | type) -> str:
    if code not in _SOURCES:
        try:
            _SOURCES[code] = inspect.getsource(code)
        except Exception:  # made without a file, or the file is no longer there or no longer the same
            _SOURCES[code] = code.__qualname__
    return _SOURCES[code]
