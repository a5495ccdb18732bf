"""Kept checks: all that the check of a network depends on, as a key under which its outcome is kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from vizcnn.models.model import Model
from vizcnn.models.targets import OUTPUT, Target
from vizcnn.models.terms import Direction, Energy, Strongest, Unit

_PLAIN = (int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device, type)
_OWN = frozenset(vars(nn.Module())) - {"training"}  # what every module has: parameters and buffers are in the digest
_DEEPEST = 6  # objects inside objects
_MOST_NUMBERS = 4096


class _Opaque(Exception):  # noqa: N818 - it never leaves this module
    """What an object holds cannot be told."""


def make_key(model: Model, inputs: Tensor, given: tuple[Target, ...] | None, weights: str) -> Hashable:
    """What the check of a network depends on: weights, modules with their code, attributes and hooks, the form of the
    inputs and whether there are several.

    None where that cannot be told: for a person's own target function, and for attributes that are no plain values and
    no objects made of these."""
    if not all(isinstance(term, Unit | Energy | Strongest | Direction) for one in given or () for _, term in one.terms):
        return None
    try:
        modules = tuple(_freeze_module(name, module) for name, module in model.network.named_modules())
    except _Opaque:
        return None
    layers = frozenset({OUTPUT}).union(*(one.layers for one in given or ()))
    form = (inputs.shape[1:], inputs.dtype, inputs.device, len(inputs) > 1)
    return weights, model.head, model.labels and len(model.labels), given is None, layers, form, modules


def _freeze_module(name: str, module: nn.Module) -> Hashable:
    attributes = {key: value for key, value in vars(module).items() if key not in _OWN}
    hooks = (*module._forward_pre_hooks, *module._forward_hooks)  # the numbers of their handles, none given twice
    return name, type(module), _freeze(type(module).forward), _freeze(attributes), hooks


def _freeze(value: Any, depth: int = 0) -> Hashable:
    """A value as something that can be compared and stays as it is. Raises _Opaque."""
    if depth > _DEEPEST:
        raise _Opaque
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Mapping):
        return type(value), tuple((_freeze(key, depth + 1), _freeze(one, depth + 1)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_freeze(one, depth + 1) for one in value)
    if isinstance(value, set | frozenset):
        return type(value), frozenset(_freeze(one, depth + 1) for one in value)
    if isinstance(value, Tensor) and value.numel() <= _MOST_NUMBERS:  # not a buffer, or it would be in the digest
        return value.dtype, value.shape, tuple(value.flatten().tolist())
    if isinstance(value, partial):
        return partial, _freeze([value.func, value.args, value.keywords], depth + 1)
    if isinstance(value, FunctionType):  # its code may be exchanged, as a reload does
        try:
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
        except ValueError as error:  # a variable of the function around it that has no value yet
            raise _Opaque from error
        given = [value.__defaults__, value.__kwdefaults__, closure, value.__dict__]
        return value, value.__code__, _freeze(given, depth + 1)
    if isinstance(value, BuiltinFunctionType | MethodType):
        return id(value.__self__), value.__name__
    if hasattr(value, "__dict__") and not isinstance(value, Tensor | nn.Module):  # a module out of sight of the digest
        return type(value), _freeze(vars(value), depth + 1)
    raise _Opaque
