"""Dry runs: what a network's layers would do to an input, without computing a number."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from types import MethodType
from typing import Any, Self

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


_KEEPING = {"add", "clamp", "clamp_max", "clamp_min", "div", "exp", "gelu", "mul", "neg", "pow", "relu", "rsqrt"}
_KEEPING |= {"sigmoid", "silu", "softplus", "sqrt", "sub", "tanh"}
"""Operations, element by element, whose output has the dtype of a floating-point input."""


class PlainMode(TorchDispatchMode):
    """A mode that does not import torch's compiler. While it is on, `run_operation` meets each operation.

    From torch 2.13 on, the `__torch_dispatch__` of a mode is wrapped to keep the compiler out of it, and the wrapper's
    first call imports the compiler for that, which takes more than a second. Where it is not imported there is nothing
    to keep out, and the method is called as it was written; a compiled network has imported it, and the wrapper stays.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        vars(self).pop("__torch_dispatch__", None)
        if "torch._dynamo" not in sys.modules:
            written = inspect.unwrap(PlainMode.__torch_dispatch__)
            self.__torch_dispatch__ = MethodType(written, self)  # type: ignore[method-assign]
        return super().__enter__()  # type: ignore[no-untyped-call, no-any-return]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run_operation(func, args, kwargs or {})

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The outcome of one operation."""
        raise NotImplementedError


class OnMeta(PlainMode):
    """While the context is open, a network given a meta tensor runs on meta tensors, its own weights left alone.

    Meta tensors have a shape and a dtype but no values: such a run takes milliseconds, whatever the network.
    """

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if len({t.is_meta for t in tensors_in(args, kwargs)}) == 2:
            args, kwargs = with_tensors((args, kwargs), lambda t: t.to("meta"))
        return self.ran(func, args, kwargs)

    def ran(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The outcome of one operation of the network."""
        quick = _quickly(func, args, kwargs)
        return func(*args, **kwargs) if quick is None else quick


def _quickly(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The outcome on meta tensors of what is frequent and easily told; None for anything else.

    Torch takes long to work these out, and imports its compiler, or sympy, for the first of them."""
    if not (args and isinstance(args[0], Tensor) and args[0].is_meta):
        return None
    if func in _RULES:
        return _RULES[func](*by_name(func, args, kwargs).values())
    name = func._schema.name.removeprefix("aten::")
    if func._schema.is_mutable:  # in place, such as add_; others write into an argument called out
        return args[0] if name.endswith("_") and elementwise(func) else None
    return _alike(args[0]) if name in _KEEPING and _decides(args[0], (*args[1:], *kwargs.values())) else None


def _alike(values: Tensor) -> Tensor:
    return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device="meta")


def _decides(first: Tensor, others: Sequence[Any]) -> bool:
    """Whether an operation element by element has an output of the first tensor's shape, strides and dtype: that is
    dense, of floating point, and the others are stretched to it or real numbers."""
    tensors = tensors_in(others)
    fits = all(
        (other.dtype == first.dtype or (not other.dim() and not other.is_complex()))
        and other.dim() <= first.dim()
        and all(side in (1, full) for side, full in zip(other.shape[::-1], first.shape[::-1], strict=False))
        for other in tensors
    )
    real = not any(isinstance(other, complex) for other in others)
    return fits and real and first.is_floating_point() and _is_dense(first)


def _is_dense(values: Tensor) -> bool:
    """Whether the elements fill a piece of memory without gaps and without sharing places, in whatever order."""
    expected = 1
    for step, side in sorted(
        (step, side) for step, side in zip(values.stride(), values.shape, strict=True) if side != 1
    ):
        if step != expected:
            return False
        expected *= side
    return True


def _normalised(values: Tensor, *others: Any) -> Any:
    """Batch normalisation in eval mode."""
    training = others[4]
    if training or not _is_dense(values):
        return None
    return _alike(values), *(torch.empty(0, dtype=values.dtype, device="meta") for _ in range(2))


def _averaged(values: Tensor, dims: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor | None:
    """A mean over these dimensions."""
    gone = {d % max(1, values.dim()) for d in dims or range(values.dim())}
    known = all(-values.dim() <= d < values.dim() for d in dims or ()) and len(gone) == len(dims or gone)
    if not (known and values.is_floating_point() and values.is_contiguous()):
        return None
    sides = [1 if d in gone else side for d, side in enumerate(values.shape) if keepdim or d not in gone]
    return torch.empty(sides, dtype=dtype or values.dtype, device="meta")


def _multiplied(bias: Tensor, rows: Tensor, columns: Tensor, *_factors: Any) -> Tensor | None:
    """A dense layer: rows (N, K) times columns (K, M), plus the bias (M,)."""
    fits = rows.dim() == columns.dim() == 2 and rows.shape[1:] == columns.shape[:1] and bias.shape == columns.shape[1:]
    if not (fits and bias.dtype == rows.dtype == columns.dtype):
        return None
    return torch.empty(len(rows), columns.shape[1], dtype=rows.dtype, device="meta")  # (N, M)


def _convolved(
    images: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    """What a plain convolution in two dimensions gives; None for any other, and for arguments that do not fit."""
    if transposed or images.dim() != 4 or kernels.dim() != 4 or images.dtype != kernels.dtype:
        return None
    if not (images.is_contiguous() and kernels.is_contiguous() and images.shape[1] == kernels.shape[1] * groups):
        return None
    if len(kernels) % groups or (bias is not None and bias.shape != kernels.shape[:1]):
        return None
    sides = _positions(images, kernels.shape[2:], stride, padding, dilation)
    if min(sides) < 1:
        return None
    return torch.empty(len(images), len(kernels), *sides, dtype=images.dtype, device="meta")  # (N, K, h, w)


def _pooled(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Any:
    """The largest values under a window that slides over images (N, C, H, W), and their places."""
    if ceil_mode or images.dim() != 4 or not images.is_contiguous():
        return None
    sides = _positions(images, kernel, stride or kernel, padding, dilation)
    if min(sides) < 1 or any(2 * pad > side for pad, side in zip(_twice(padding), _twice(kernel), strict=True)):
        return None
    return tuple(torch.empty(*images.shape[:2], *sides, dtype=d, device="meta") for d in (images.dtype, torch.int64))


def _positions(images: Tensor, *window: Sequence[int]) -> list[int]:
    """How many places a window of these sides, stride, padding and dilation has in images (N, C, H, W)."""
    each = zip(images.shape[2:], *map(_twice, window), strict=True)
    return [(size + 2 * pad - apart * (side - 1) - 1) // step + 1 for size, side, step, pad, apart in each]


def _twice(numbers: Sequence[int]) -> Sequence[int]:
    """One number for rows and one for columns."""
    return numbers if len(numbers) == 2 else [*numbers] * 2


_RULES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.addmm.default: _multiplied,
    torch.ops.aten.convolution.default: _convolved,
    torch.ops.aten.max_pool2d_with_indices.default: _pooled,
    torch.ops.aten.mean.dim: _averaged,
    torch.ops.aten.native_batch_norm.default: _normalised,
}
"""By operation: its outcome, from all arguments; None where torch has to say it."""


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
