"""What a network's outputs are: logits, probabilities, or neither. Decided once, and obeyed by whatever speaks of them.

Logits of a softmax, logits of many sigmoids, probabilities and their logarithms are all just numbers (N, K); a softmax
over what went through a sigmoid already is no probability of anything. So it is found out how the network made them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vizcnn.errors import ParameterError, TargetError, did_you_mean

Head = Literal["logits", "softmax", "log-softmax", "sigmoid", "sigmoid-logits", "scores"]
"""What the outputs (N, K) or (N, K, H, W) are.

logits: one for each class, of which one is right: their softmax is the probability. A single one: its sigmoid.
softmax: probabilities of such classes. log-softmax: the logarithms of these.
sigmoid: a probability for each label; any number of labels may be right. sigmoid-logits: their logits.
scores: anything else; nothing is known of probabilities.
"""

QUANTITIES: dict[Head, str] = {
    "logits": "logit",
    "softmax": "probability",
    "log-softmax": "log-probability",
    "sigmoid": "probability",
    "sigmoid-logits": "logit",
    "scores": "score",
}

_SIGMOIDS = {"sigmoid", "expit", "special_expit"}
_WEIGHTED = {"linear", "conv1d", "conv2d", "conv3d", "bilinear", "batch_norm", "layer_norm", "group_norm"}
"""What has weights of its own: its outcome has no bounds, whatever it is given."""
_SUMS = {
    "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv", "itruediv", "sum", "relu",
}  # fmt: skip
"""What has no bounds if something that it is given has none."""
_COPIES = {
    "to", "float", "double", "half", "bfloat16", "clone", "contiguous", "cpu", "type", "reshape", "flatten", "mean",
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d",
    "amax", "stack", "cat",
}  # fmt: skip
"""What gives numbers of the same kind as those that it is given: a mean of probabilities is one."""
_REMEMBERED = 16  # results, the latest: few operations stand behind what makes the output


def checked_head(head: Any) -> Head | None:
    """Raises ParameterError unless it is one of the kinds, or None."""
    if head is None or head in get_args(Head):
        return head  # type: ignore[no-any-return]
    known = ", ".join(get_args(Head))
    raise ParameterError(f"head must be one of {known}, got {head!r}.{did_you_mean(str(head), get_args(Head))}")


class Makers(TorchFunctionMode):
    """While open, remembers which function made a tensor; what only looks at the same memory, copies it or averages it
    counts as made by what made the original."""

    def __init__(self) -> None:
        super().__init__()
        self.made: deque[tuple[Tensor, str]] = deque(maxlen=_REMEMBERED)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.made.append((result, self._maker(getattr(function, "__name__", ""), args, result)))
        return result

    def _maker(self, function: str, args: tuple[Any, ...], result: Tensor) -> str:
        """What counts as the maker of a function's result; empty where several makers have made parts of it."""
        name, given = function.strip("_"), [arg for arg in tree_leaves(args) if isinstance(arg, Tensor)]
        in_place = function.endswith("_") and not function.endswith("__")
        same = bool(given) and _memory(given[0]) == _memory(result) and not in_place
        if name in _SUMS:
            return next((maker for maker in map(self.of, given) if maker in _WEIGHTED), name)
        if not (same or (given and name in _COPIES)):
            return name
        makers = {self.of(each) for each in (given[:1] if same else given)}
        return makers.pop() if len(makers) == 1 else ""

    def of(self, tensor: Tensor) -> str:
        """The name of the function that made a tensor; empty where that was not seen."""
        memory = _memory(tensor)
        return next((name for each, name in reversed(self.made) if _memory(each) == memory), "")


def _memory(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse ones, and those that only wrap others
        return id(tensor)


def found_head(output: Any, said: Head | None = None, makers: Makers | None = None) -> Head:
    """What a network's output is: what the person has said, if it can be that; else what the function that made it and
    its numbers show.

    What a layer with weights made are logits, whatever the numbers. Numbers between 0 and 1 that do not add up are
    probabilities where a sigmoid made them, and otherwise just scores. Raises ParameterError where what was said cannot
    be."""
    if not (isinstance(output, Tensor) and output.is_floating_point() and output.dim() >= 2 and output.numel()):
        return said or "scores"
    numbers = output.detach().float()
    if said is not None:
        _refuse_other(said, numbers, output.dtype)
        return said
    maker = makers.of(output) if makers else ""
    if maker in _WEIGHTED:
        return "logits"
    if output.shape[1] > 1 and bool((numbers >= 0).all()) and _add_up(numbers, output.dtype):
        return "softmax"
    if output.shape[1] > 1 and bool((numbers <= 0).all()) and _add_up(numbers.exp(), output.dtype):
        return "log-softmax"
    if maker in _SIGMOIDS:
        return "sigmoid"
    between = bool(((numbers >= 0) & (numbers <= 1)).all())
    return "scores" if between else "logits"


def _add_up(shares: Tensor, dtype: torch.dtype) -> bool:
    """Whether numbers (N, K, ...) add up to 1 over the classes, within the rounding of their type."""
    return bool(((shares.sum(1) - 1).abs() <= max(1e-3, 4 * torch.finfo(dtype).eps)).all())


def _refuse_other(head: Head, numbers: Tensor, dtype: torch.dtype) -> None:
    shares = numbers.exp() if head == "log-softmax" else numbers
    outside = bool(((shares < 0) | (shares > 1)).any()) and head in ("softmax", "sigmoid")
    if outside or (head in ("softmax", "log-softmax") and not _add_up(shares, dtype)):
        got = f"{float(numbers.min()):.3g}..{float(numbers.max()):.3g}"
        raise ParameterError(f"the Model's head is said to be {head}, but its outputs are {got}. Give another, or none")


def probabilities(output: Tensor, head: Head) -> Tensor:
    """The probability of each class, in the output's shape (N, K, ...). Raises TargetError where it is not known."""
    if head == "scores":
        raise TargetError(
            "nothing shows that the network's outputs are logits or probabilities. Say what they are: "
            f"Model(head=...), one of {', '.join(get_args(Head))}"
        )
    if head in ("softmax", "sigmoid"):
        return output
    if head == "log-softmax":
        return output.exp()
    return output.sigmoid() if head == "sigmoid-logits" or output.shape[1] == 1 else output.softmax(1)
