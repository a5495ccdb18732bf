"""Backward rules: other gradients for ReLU and max-pooling, as long as a context is open.

The rules apply where the operations are called, not to modules, so that they reach functional, in-place and reused
ReLUs as well, and clamps at zero. The network itself is not changed. What ran forward inside the context follows the
rule in its backward pass, also after the context has closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vizcnn.errors import UnsuitableNetwork

Backward = Callable[[Tensor, Tensor], Tensor]
"""A rule: from the gradient that arrives at a ReLU and its local derivative (0 or 1) to the gradient passed on."""

_RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_CLIPPED = {F.hardtanh, F.hardtanh_}  # nn.ReLU6 is a hardtanh from 0 to 6
_IN_PLACE = {F.relu_, torch.relu_, Tensor.relu_, F.hardtanh_}
_CLAMPS = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clamp_min, torch.clamp_min_,
           Tensor.clamp_min, Tensor.clamp_min_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_}  # fmt: skip
_OTHER_NAMES = (
    "leaky_relu silu gelu elu selu celu hardswish mish softplus softsign prelu rrelu glu threshold hardshrink "
    "softshrink tanhshrink logsigmoid tanh"
)
_OTHERS = {
    found
    for name in _OTHER_NAMES.split()
    for home in (F, torch, Tensor)
    for spelling in (name, f"{name}_")
    if (found := getattr(home, spelling, None)) is not None
}
_UNSWITCHED = {F.adaptive_max_pool2d, F.adaptive_max_pool2d_with_indices, F.fractional_max_pool2d}
_POOLS = {F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d}


def guide(signal: Tensor, derivative: Tensor) -> Tensor:
    """Guided backpropagation: positive gradients pass where the ReLU was open (Springenberg et al. 2015)."""
    return signal.clamp(min=0) * derivative


def rectify(signal: Tensor, derivative: Tensor) -> Tensor:  # noqa: ARG001 - the rule of the deconvnet ignores it
    """The deconvnet's rule: positive gradients pass, whether the ReLU was open or not (Zeiler & Fergus 2014)."""
    return signal.clamp(min=0)


def redirect(signal: Tensor, derivative: Tensor) -> Tensor:
    """For gradient ascent: for an image that a ReLU shuts out, gradients pass that would open it (as in Lucid)."""
    passed = signal * derivative
    opening = torch.where(derivative > 0, signal, signal.clamp(min=0))
    stuck = (passed == 0).flatten(1).all(1).view(-1, *[1] * (signal.dim() - 1))  # (N, 1, ...)
    return torch.where(stuck, opening, passed)


class ReluRule(TorchFunctionMode):
    """While open, every ReLU and ReLU6 follows `rule` in its backward pass.

    Raises UnsuitableNetwork where the network uses an activation for which the rule is not defined, and in `check()`
    where no ReLU has run.
    """

    def __init__(self, rule: Backward) -> None:
        super().__init__()
        self.rule, self.met = rule, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _RELUS or function is F.relu6:
            return self._run_relu(function, 6.0 if function is F.relu6 else torch.inf, *args, **kwargs)
        if function in _CLIPPED:
            return self._run_hardtanh(function, *args, **kwargs)
        if function in _CLAMPS and (zero := _find_clamp_at_zero(*args, **kwargs)):
            in_place = function.__name__.endswith("_")
            return self._run_relu(function, zero.top, args[0], in_place)
        if function in _OTHERS:
            self.handle_other_activation(function)
        return self.run_other(function, args, kwargs)

    def handle_other_activation(self, function: Any) -> None:
        """Called for an activation for which the rule is not defined."""
        raise UnsuitableNetwork(
            f"the network uses {function.__name__}, but this method's rule is defined for ReLU only and would leave "
            "the others as plain gradients. Use gradient, smoothgrad or integrated-gradients"
        )

    def run_other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that is no activation."""
        return function(*args, **kwargs)

    def _run_hardtanh(
        self, function: Any, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
    ) -> Tensor:
        if min_val != 0:
            self.handle_other_activation(function)
            untouched: Tensor = function(input, min_val, max_val)
            return untouched
        return self._run_relu(function, max_val, input, inplace)

    def _run_relu(self, function: Any, top: float, input: Tensor, inplace: bool = False) -> Tensor:
        self.met += 1
        output: Tensor = _Relu.apply(input, top, self.rule)  # type: ignore[no-untyped-call]
        return input.copy_(output) if inplace or function in _IN_PLACE else output

    def check(self) -> None:
        """Raise UnsuitableNetwork where no ReLU has run: the result would be a plain gradient under another name."""
        if not self.met:
            raise UnsuitableNetwork("the network has no ReLU, so this method would be the plain gradient. Use gradient")


@dataclass(frozen=True)
class _ZeroClamp:
    """A clamp from zero up to `top`."""

    top: float


def _find_clamp_at_zero(_input: Tensor, min: Any = None, max: Any = None) -> _ZeroClamp | None:
    """A clamp from zero upwards, which is a ReLU; None for any other clamp."""
    if isinstance(min, Tensor) or isinstance(max, Tensor) or min != 0:
        return None
    return _ZeroClamp(torch.inf if max is None else float(max))


class Redirection(ReluRule):
    """While open, gradients also reach images of which a ReLU lets nothing through (`redirect`).

    Other activations stay as they are. The gradient must be that of a number that is to grow.
    """

    def __init__(self) -> None:
        super().__init__(redirect)

    def handle_other_activation(self, function: Any) -> None:
        pass


class DeconvnetRule(ReluRule):
    """The deconvnet: positive gradients through ReLUs (`rectify`), and max-pooling undone by its switches.

    Unpooling puts each value back where the maximum of its window came from. Where overlapping windows share that
    place, the largest value is put there; a gradient would add them up.
    """

    def __init__(self) -> None:
        super().__init__(rectify)

    def run_other(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in _UNSWITCHED:
            raise UnsuitableNetwork(
                f"the network pools with {function.__name__}, for which the deconvnet's unpooling is not defined here. "
                "Use saliency"
            )
        if function in _POOLS:
            both = kwargs.pop("return_indices", False) or function is F.max_pool2d_with_indices
            output, switches = _pool(*args, **kwargs)
            return (output, switches) if both else output
        return function(*args, **kwargs)


class ReluWatch(DeconvnetRule):
    """While open, the network runs as always, and what a rule would refuse is noted.

    met: how many ReLUs have run. other_activation, other_pool: the first refusal of each kind, None where there is
    none; see `ReluRule` and `DeconvnetRule`."""

    def __init__(self) -> None:
        super().__init__()
        self.other_activation: UnsuitableNetwork | None = None
        self.other_pool: UnsuitableNetwork | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        is_clipped = function in _CLIPPED and _starts_at_zero(*args, **kwargs)
        is_clamp = function in _CLAMPS and _find_clamp_at_zero(*args, **kwargs) is not None
        if function in _RELUS or function is F.relu6 or is_clipped or is_clamp:
            self.met += 1
        elif function in _OTHERS or function in _CLIPPED:
            self.other_activation = self.other_activation or _catch(self.handle_other_activation, function)
        elif function in _UNSWITCHED:
            self.other_pool = self.other_pool or _catch(self.run_other, function, args, kwargs)
        return function(*args, **kwargs)

    def check(self, *, pools: bool = False) -> None:
        """Raise what a rule would have raised. pools: for the deconvnet, which undoes pooling too."""
        for refusal in (self.other_activation, self.other_pool if pools else None):
            if refusal:
                raise refusal
        super().check()


def _starts_at_zero(_input: Tensor, min_val: float = -1.0, *_: Any, **__: Any) -> bool:
    """Whether a hardtanh is a ReLU that ends somewhere."""
    return min_val == 0


def _catch(refuse: Callable[..., Any], *arguments: Any) -> UnsuitableNetwork | None:
    """What a call refuses with."""
    try:
        refuse(*arguments)
    except UnsuitableNetwork as error:
        return error
    return None


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, top: float, rule: Backward) -> Tensor:
        ctx.save_for_backward((input > 0) & (input < top))
        ctx.rule = rule
        return input.clamp(min=0, max=top)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None, None]:
        (open_,) = ctx.saved_tensors
        return ctx.rule(signals[0], open_.to(signals[0].dtype)), None, None


def _pool(input: Tensor, *sizes: Any, **more: Any) -> tuple[Tensor, Tensor]:
    output, switches = F.max_pool2d_with_indices(input, *sizes, **more)
    result: Tensor = _Unpool.apply(input, output.detach(), switches)  # type: ignore[no-untyped-call]
    return result, switches


class _Unpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, output: Tensor, switches: Tensor) -> Tensor:
        ctx.save_for_backward(switches)
        ctx.shape = input.shape
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None, None]:
        (switches,) = ctx.saved_tensors
        empty = signals[0].new_full(ctx.shape, -torch.inf).flatten(-2)  # (N, C, H W)
        placed = empty.scatter_reduce(-1, switches.flatten(-2), signals[0].flatten(-2), "amax")
        return placed.masked_fill(placed.isneginf(), 0).view(ctx.shape), None, None  # (N, C, H, W)
