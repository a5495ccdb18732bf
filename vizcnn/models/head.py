"""Head: what a network's outputs are, logits, probabilities or neither. Decided once, for everything that names them.

Logits of a softmax, logits of many sigmoids, probabilities and their logarithms all look alike, (N, K); and a softmax
of outputs that went through a sigmoid already is no probability of anything. So the operations that made the outputs
are looked at, not the outputs alone.
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
"""Operations with weights: their results have no bounds, whatever the inputs."""
_SUMS = {
    "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "div", "truediv", "itruediv", "sum", "relu",
}  # fmt: skip
"""Operations whose results have no bounds if one of their inputs has none."""
_COPIES = {
    "to", "float", "double", "half", "bfloat16", "clone", "contiguous", "cpu", "type", "reshape", "flatten", "mean",
    "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d",
    "amax", "stack", "cat",
}  # fmt: skip
"""Operations whose results are of the same kind as their inputs: a mean of probabilities is a probability."""
_REMEMBERED = 16  # latest results: the output is made by one of the last few operations


def check_head(head: Any) -> Head | None:
    """The head that a person gave, or None. Raises ParameterError for anything else."""
    if head is None or head in get_args(Head):
        return head  # type: ignore[no-any-return]
    known = ", ".join(get_args(Head))
    raise ParameterError(f"head must be one of {known}, got {head!r}.{did_you_mean(str(head), get_args(Head))}")


class Makers(TorchFunctionMode):
    """While open, remembers which function made each tensor. Views, copies and means of a tensor count as made by the
    function that made the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.made: deque[tuple[Tensor, str]] = deque(maxlen=_REMEMBERED)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.made.append((result, self._choose_maker(getattr(function, "__name__", ""), args, result)))
        return result

    def _choose_maker(self, function: str, args: tuple[Any, ...], result: Tensor) -> str:
        """The name of the function that counts as the maker of a result; "" where its parts have different makers."""
        name, given = function.strip("_"), [arg for arg in tree_leaves(args) if isinstance(arg, Tensor)]
        in_place = function.endswith("_") and not function.endswith("__")
        same = bool(given) and _find_memory(given[0]) == _find_memory(result) and not in_place
        if name in _SUMS:
            return next((maker for maker in map(self.find_maker, given) if maker in _WEIGHTED), name)
        if not (same or (given and name in _COPIES)):
            return name
        makers = {self.find_maker(each) for each in (given[:1] if same else given)}
        return makers.pop() if len(makers) == 1 else ""

    def find_maker(self, tensor: Tensor) -> str:
        """The name of the function that made a tensor; "" where that was not seen."""
        memory = _find_memory(tensor)
        return next((name for each, name in reversed(self.made) if _find_memory(each) == memory), "")


def _find_memory(tensor: Tensor) -> int:
    """The address of a tensor's memory, which its views share."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse ones, and those that only wrap others
        return id(tensor)


def find_head(output: Any, said: Head | None = None, makers: Makers | None = None) -> Head:
    """What a network's output is: as the person says, else as its maker and its values show.

    The results of a layer with weights are logits, whatever their values. Values between 0 and 1 that do not add up to
    1 are probabilities if a sigmoid made them, and just scores otherwise. Raises ParameterError where the values
    contradict what the person says."""
    if not (isinstance(output, Tensor) and output.is_floating_point() and output.dim() >= 2 and output.numel()):
        return said or "scores"
    values = output.detach().float()
    if said is not None:
        _refuse_other(said, values, output.dtype)
        return said
    maker = makers.find_maker(output) if makers else ""
    if maker in _WEIGHTED:
        return "logits"
    if output.shape[1] > 1 and bool((values >= 0).all()) and _add_up(values, output.dtype):
        return "softmax"
    if output.shape[1] > 1 and bool((values <= 0).all()) and _add_up(values.exp(), output.dtype):
        return "log-softmax"
    if maker in _SIGMOIDS:
        return "sigmoid"
    between = bool(((values >= 0) & (values <= 1)).all())
    return "scores" if between else "logits"


def is_made_by_weights(output: Any, makers: Makers) -> bool:
    """Whether a layer with weights made a network's output, so that `find_head` does not go by its values."""
    return isinstance(output, Tensor) and makers.find_maker(output) in _WEIGHTED


def _add_up(shares: Tensor, dtype: torch.dtype) -> bool:
    """Whether values (N, K, ...) add up to 1 over the classes, within the rounding of their dtype."""
    return bool(((shares.sum(1) - 1).abs() <= max(1e-3, 4 * torch.finfo(dtype).eps)).all())


def _refuse_other(head: Head, values: Tensor, dtype: torch.dtype) -> None:
    shares = values.exp() if head == "log-softmax" else values
    outside = bool(((shares < 0) | (shares > 1)).any()) and head in ("softmax", "sigmoid")
    if outside or (head in ("softmax", "log-softmax") and not _add_up(shares, dtype)):
        got = f"{float(values.min()):.3g}..{float(values.max()):.3g}"
        raise ParameterError(f"the Model's head is said to be {head}, but its outputs are {got}. Give another, or none")


def to_probabilities(output: Tensor, head: Head) -> Tensor:
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
