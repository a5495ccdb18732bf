"""Dry runs: what a network's layers would do to an input, on meta tensors, which have a shape but no values."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy, deepcopy
from types import MethodType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vizcnn.errors import ParameterError
from vizcnn.models.model import Model

T = TypeVar("T")

See = Callable[[str, Any], None]
"""Called with a layer's dotted name and its output each time that the layer has run."""

_UNTAGGED = {"_prelu_kernel", "alias", "celu", "clone", "detach", "elu", "hardsigmoid", "hardswish", "hardtanh"}
_UNTAGGED |= {"leaky_relu", "lift_fresh", "mish", "prelu", "selu"}
"""Operations element by element, also in place, that torch, or an older version of it, does not tag as such."""


_KEEPING = {"add", "clamp", "clamp_max", "clamp_min", "div", "exp", "gelu", "mul", "neg", "pow", "relu", "rsqrt"}
_KEEPING |= {"sigmoid", "silu", "softplus", "sqrt", "sub", "tanh"}
"""Operations element by element whose output has the dtype of their floating-point input."""


class PlainMode(TorchDispatchMode):
    """A dispatch mode that does not import torch's compiler. While it is on, `run_operation` gets every operation.

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
        """Run one operation and return its result."""
        raise NotImplementedError


class MetaMode(PlainMode):
    """While the context is open, a network given a meta tensor runs on meta tensors; its weights stay as they are.

    Meta tensors have a shape and a dtype but no values: such a run takes milliseconds, whatever the network.
    """

    def run_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if len({t.is_meta for t in find_tensors(args, kwargs)}) == 2:
            args, kwargs = map_tensors((args, kwargs), lambda t: t.to("meta"))
        return self.compute(func, args, kwargs)

    def compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run one operation, whose tensors are all on meta where one of them is, and return its result."""
        quick = _answer_quickly(func, args, kwargs)
        return func(*args, **kwargs) if quick is None else quick


def _answer_quickly(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a frequent and simple operation on meta tensors; None for any other.

    Torch takes long to infer these, and imports its compiler, or sympy, for the first of them."""
    if not (args and isinstance(args[0], Tensor) and args[0].is_meta):
        return None
    if func in _RULES:
        return _RULES[func](*name_arguments(func, args, kwargs).values())
    name = func._schema.name.removeprefix("aten::")
    if func._schema.is_mutable:  # in place, such as add_; others write into an argument called out
        return args[0] if name.endswith("_") and is_elementwise(func) else None
    return _make_alike(args[0]) if name in _KEEPING and _keeps_form(args[0], (*args[1:], *kwargs.values())) else None


def _make_alike(values: Tensor) -> Tensor:
    """A meta tensor of the same shape, strides and dtype."""
    return torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device="meta")


def _keeps_form(first: Tensor, others: Sequence[Any]) -> bool:
    """Whether the output of an operation element by element has the first tensor's shape, strides and dtype.

    It does if that tensor is dense and floating-point, and the others are real numbers or broadcast to its shape."""
    tensors = find_tensors(others)
    fits = all(
        (other.dtype == first.dtype or (not other.dim() and first.dim() and not other.is_complex()))
        and other.dim() <= first.dim()
        and all(side in (1, full) for side, full in zip(other.shape[::-1], first.shape[::-1], strict=False))
        for other in tensors
    )
    real = not any(isinstance(other, complex) for other in others)
    return fits and real and first.is_floating_point() and _is_dense(first)


def _is_dense(values: Tensor) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in whatever order."""
    expected = 1
    for step, side in sorted(
        (step, side) for step, side in zip(values.stride(), values.shape, strict=True) if side != 1
    ):
        if step != expected:
            return False
        expected *= side
    return True


def _infer_batch_norm(values: Tensor, *others: Any) -> Any:
    """The result of batch normalisation in eval mode; None in training."""
    training = others[4]
    if training or not _is_dense(values):
        return None
    return _make_alike(values), *(torch.empty(0, dtype=values.dtype, device="meta") for _ in range(2))


def _infer_mean(values: Tensor, dims: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor | None:
    """The result of a mean over these dimensions."""
    gone = {d % max(1, values.dim()) for d in dims or range(values.dim())}
    known = all(-values.dim() <= d < values.dim() for d in dims or ()) and len(gone) == len(dims or gone)
    if not (known and values.is_floating_point() and values.is_contiguous()):
        return None
    sides = [1 if d in gone else side for d, side in enumerate(values.shape) if keepdim or d not in gone]
    return torch.empty(sides, dtype=dtype or values.dtype, device="meta")


def _infer_addmm(bias: Tensor, rows: Tensor, columns: Tensor, *_factors: Any) -> Tensor | None:
    """The result of a dense layer: rows (N, K) times columns (K, M), plus the bias (M,)."""
    fits = rows.dim() == columns.dim() == 2 and rows.shape[1:] == columns.shape[:1] and bias.shape == columns.shape[1:]
    if not (fits and bias.dtype == rows.dtype == columns.dtype):
        return None
    return torch.empty(len(rows), columns.shape[1], dtype=rows.dtype, device="meta")  # (N, M)


def _infer_convolution(
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
    """The result of a plain two-dimensional convolution; None for any other, and for arguments that do not fit."""
    if transposed or images.dim() != 4 or kernels.dim() != 4 or images.dtype != kernels.dtype:
        return None
    if not (images.is_contiguous() and kernels.is_contiguous() and images.shape[1] == kernels.shape[1] * groups):
        return None
    if len(kernels) % groups or (bias is not None and bias.shape != kernels.shape[:1]):
        return None
    sides = _count_positions(images, kernels.shape[2:], stride, padding, dilation)
    if min(sides) < 1:
        return None
    return torch.empty(len(images), len(kernels), *sides, dtype=images.dtype, device="meta")  # (N, K, h, w)


def _infer_max_pool(
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Any:
    """The result of max-pooling images (N, C, H, W): the largest value of each window, and its index."""
    if ceil_mode or images.dim() != 4 or not images.is_contiguous():
        return None
    sides = _count_positions(images, kernel, stride or kernel, padding, dilation)
    if min(sides) < 1 or any(2 * pad > side for pad, side in zip(to_pair(padding), to_pair(kernel), strict=True)):
        return None
    return tuple(torch.empty(*images.shape[:2], *sides, dtype=d, device="meta") for d in (images.dtype, torch.int64))


def _count_positions(images: Tensor, *window: Sequence[int]) -> list[int]:
    """The number of positions, down and across, of a window in images (N, C, H, W).

    window: its sides, stride, padding and dilation. No position where the stride is zero, which torch refuses."""
    each = zip(images.shape[2:], *map(to_pair, window), strict=True)
    return [
        1 + (size + 2 * pad - apart * (side - 1) - 1) // step if step > 0 else 0
        for size, side, step, pad, apart in each
    ]


def to_pair(values: int | Sequence[int]) -> tuple[int, int]:
    """What holds down and across, from one number for both or from two."""
    several = [values] if isinstance(values, int) else values
    return several[0], several[-1]


_RULES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.addmm.default: _infer_addmm,
    torch.ops.aten.convolution.default: _infer_convolution,
    torch.ops.aten.max_pool2d_with_indices.default: _infer_max_pool,
    torch.ops.aten.mean.dim: _infer_mean,
    torch.ops.aten.native_batch_norm.default: _infer_batch_norm,
}
"""By operation: from all its arguments to its result, or to None where torch has to infer it."""


def is_elementwise(func: Any) -> bool:
    """Whether an ATen operation computes each element of its output from the elements at the same place."""
    return torch.Tag.pointwise in func.tags or func._schema.name.removeprefix("aten::").rstrip("_") in _UNTAGGED


def copy_for_dry_run(model: Model) -> Model:
    """A copy of a Model for dry runs: its network shares the weights and nothing else, so a run leaves no trace.

    A network may store constants for later runs; after a dry run of the network itself, those would be meta tensors.
    Raises ParameterError for a network that cannot be copied."""
    memory: dict[int, Any] = {id(p): p for p in model.network.parameters()}
    for module in model.network.modules():
        memory |= {id(value): value for value in find_tensors(vars(module))}
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


def try_copy_for_dry_run(model: Model) -> Model:
    """A copy for dry runs, or the Model itself where there can be none: only for runs with values, which do no harm."""
    try:
        return copy_for_dry_run(model)
    except ParameterError:
        return model


def _is_empty(value: Any) -> bool:
    """Whether a value is an empty dictionary, of which modules have many, and which are slow to copy."""
    return type(value) in (dict, OrderedDict) and not value


def find_tensors(*trees: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dictionaries, of which arguments of ATen operations consist."""
    found: list[Tensor] = []
    for tree in trees:
        if isinstance(tree, Tensor):
            found.append(tree)
        elif isinstance(tree, list | tuple):
            found += find_tensors(*tree)
        elif isinstance(tree, dict):
            found += find_tensors(*tree.values())
    return found


def map_tensors(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same nested lists, tuples and dictionaries, with `change` applied to each tensor."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, list | tuple):
        return type(tree)([map_tensors(value, change) for value in tree])
    return {k: map_tensors(v, change) for k, v in tree.items()} if isinstance(tree, dict) else tree


def name_arguments(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of an operation by name, in the order of its schema, defaults included."""
    declared = func._schema.arguments
    given = {a.name: value for a, value in zip(declared, args, strict=False)} | kwargs
    return {a.name: given.get(a.name, a.default_value) for a in declared}


@contextmanager
def watch_layers(network: nn.Module, see: See, names: Container[str] | None = None) -> Iterator[None]:
    """While the context is open, call `see` for every module inside the network that has run in this thread, or for
    those of these names.

    Unlike `capture` it takes any output and keeps none, so that it can watch layers that give tuples."""
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name and (names is None or name in names):
                hooks.callback(module.register_forward_hook(_make_hook(name, see)).remove)
        yield


def keep_last(found: dict[str, T], read: Callable[[str, Any], Iterable[T]]) -> See:
    """A `see` that keeps what is read of each layer's last output, in the order of the layers' last runs.

    read: from a layer's name and output to the value to keep, or to none; where there is none, none is kept of an
    earlier run either."""

    def see(name: str, output: Any) -> None:
        found.pop(name, None)
        found.update((name, value) for value in read(name, output))

    return see


def _make_hook(name: str, see: See) -> Any:
    thread = threading.get_ident()

    def tell(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            see(name, output)

    return tell


@contextmanager
def follow_run(model: Model, see: See, mode: MetaMode) -> Iterator[None]:
    """While the context is open, the model runs without gradients: `mode` gets every operation, and `see`
    every module that has run."""
    with (
        torch.inference_mode(False),  # in which operations come in larger pieces
        torch.no_grad(),
        torch.overrides.BaseTorchFunctionMode(),  # lets no module do its layers' work in one piece, past their hooks
        model.borrowed() as network,
        watch_layers(network, see),
        mode,
    ):
        yield
