"""Restoring: a network is exactly as it was, after somebody has looked at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vizcnn.models.threads import lock_network
from vizcnn.models.unwrapping import take_off_wrappers
from vizcnn.process import keep_environment


@contextmanager
def borrow_network(network: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode with frozen parameters; afterwards it is exactly as before, whatever happened.

    Other threads that borrow it, or a network that shares modules or weights with it, wait. Flags are set directly: a
    network whose own `train()` does more than set a flag is not disturbed. Weights that were made in inference mode,
    through which no gradient can go, are replaced by copies for as long. Wrappers around parts of the network are taken
    off, and backward hooks are set aside: they do not change what the network computes, only what its gradients say.
    """
    with lock_network(network), keep_environment(), take_off_wrappers(network), _set_backward_hooks_aside(network):
        modules = list(network.modules())
        modes = [(module, module.training) for module in modules]
        held = [(m, dict(m._parameters), dict(m._buffers)) for m in modules]
        made = [
            (vars(module), name, value)
            for module in modules
            for name, value in vars(module).items()
            if isinstance(value, Tensor) and value.grad_fn is not None
        ]
        buffers = [(b, b.clone()) for _, _, named in held for b in named.values() if b is not None]
        parameters = [(p, p.requires_grad, p.grad) for p in network.parameters()]
        try:
            for module in modules:
                module.training = False
            for parameter, _, _ in parameters:
                if not parameter.is_inference():
                    parameter.requires_grad_(False)
            _replace_inference_tensors(modules)
            yield network
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, wanted_grad, grad in parameters:
                if not parameter.is_inference():
                    parameter.requires_grad_(wanted_grad)
                    parameter.grad = grad
            for module, own_parameters, own_buffers in held:
                module._parameters.clear()  # a forward may have registered more
                module._parameters.update(own_parameters)
                module._buffers.clear()
                module._buffers.update(own_buffers)
            for buffer, values in buffers:
                _put_back(buffer, values)
            for members, name, value in made:  # weights that hooks make of parameters, such as the old weight_norm's
                members[name] = value


@contextmanager
def _set_backward_hooks_aside(network: nn.Module) -> Iterator[None]:
    """While the context is open, modules have no backward hooks, such as those of a guided backpropagation by hand."""
    kinds = ("_backward_hooks", "_backward_pre_hooks")
    aside = [(hooks, dict(hooks)) for module in network.modules() for kind in kinds if (hooks := getattr(module, kind))]
    try:
        for hooks, _ in aside:
            hooks.clear()
        yield
    finally:
        for hooks, own in aside:
            hooks.clear()
            hooks.update(own)


def _put_back(buffer: Tensor, values: Tensor) -> None:
    """Give a buffer the values, and the shape, that it had."""
    if buffer.shape != values.shape:
        buffer.data = values
    elif buffer.layout != torch.strided or not torch.equal(buffer, values):
        buffer.copy_(values)


def _replace_inference_tensors(modules: Sequence[nn.Module]) -> None:
    """Give modules ordinary copies of the parameters and buffers that were made in inference mode."""
    copies: dict[int, Tensor] = {}
    for module in modules:
        for named in (module._parameters, module._buffers):
            for name, value in named.items():
                if value is not None and value.is_inference():
                    if id(value) not in copies:
                        copy = value.detach().clone()
                        is_weight = isinstance(value, nn.Parameter)
                        copies[id(value)] = nn.Parameter(copy, requires_grad=False) if is_weight else copy
                    named[name] = copies[id(value)]  # type: ignore[assignment]
