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
_UNBOUNDED = {
    "linear", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm", "addmm", "addbmm", "baddbmm", "matmul", "mm",
    "bmm", "einsum", "add", "radd", "iadd", "sub", "rsub", "isub", "bilinear", "relu", "avg_pool2d",
    "adaptive_avg_pool2d", "mean", "sum",
}  # fmt: skip
_COPIES = {"to", "float", "double", "half", "bfloat16", "clone", "contiguous", "cpu", "type", "reshape", "flatten"}
_REMEMBERED = 16  # results, the latest: few operations stand behind what makes the output


def checked_head(head: Any) -> Head | None:
    """Raises ParameterError unless it is one of the kinds, or None."""
    if head is None or head in get_args(Head):
        return head  # type: ignore[no-any-return]
    known = ", ".join(get_args(Head))
    raise ParameterError(f"head must be one of {known}, got {head!r}.{did_you_mean(str(head), get_args(Head))}")


class Makers(TorchFunctionMode):
    """While open, remembers which function made a tensor; what only looks at the same memory, or copies it, counts as
    made by what made the original."""

    def __init__(self) -> None:
        super().__init__()
        self.made: deque[tuple[Tensor, str]] = deque(maxlen=_REMEMBERED)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            name = getattr(function, "__name__", "")
            given = next((arg for arg in args if isinstance(arg, Tensor)), None)
            in_place = name.endswith("_") and not name.endswith("__")
            if given is not None and (name in _COPIES or (_memory(given) == _memory(result) and not in_place)):
                name = self.of(given)
            self.made.append((result, name.strip("_")))
        return result

    def of(self, tensor: Tensor) -> str:
        """The name of the function that made a tensor; empty where that was not seen."""
        memory = _memory(tensor)
        return next((name for each, name in reversed(self.made) if _memory(each) == memory), "")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


def found_head(output: Any, said: Head | None = None, makers: Makers | None = None) -> Head:
    """What a network's output is: what the person has said, if it can be that; else what its numbers and the function
    that made it show.

    Numbers between 0 and 1 that do not add up are probabilities where a sigmoid made them, logits where something did
    that has no bounds, and otherwise just scores. Raises ParameterError where what was said cannot be."""
    if not (isinstance(output, Tensor) and output.is_floating_point() and output.dim() >= 2 and output.numel()):
        return said or "scores"
    numbers = output.detach().float()
    if said is not None:
        _refuse_other(said, numbers, output.dtype)
        return said
    maker = makers.of(output) if makers else ""
    if output.shape[1] > 1 and bool((numbers >= 0).all()) and _add_up(numbers, output.dtype):
        return "softmax"
    if output.shape[1] > 1 and bool((numbers <= 0).all()) and _add_up(numbers.exp(), output.dtype):
        return "log-softmax"
    if maker in _SIGMOIDS:
        return "sigmoid"
    between = bool(((numbers >= 0) & (numbers <= 1)).all())
    return "scores" if between and maker not in _UNBOUNDED else "logits"


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
