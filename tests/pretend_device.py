"""A pretend accelerator, for tests of what is sent to a device and what is waited for.

Its tensors keep their numbers in main memory. Tensors of the processor are refused beside them, as CUDA refuses them,
and `count` says how many operations ran, how often numbers were sent there and how often the program waited for some.
It registers itself with torch for good, so a test uses it in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "npy"  # the only one that torch accepts here
count: Counter[str] = Counter()
"""`operations` on tensors of the device; `copies` of numbers to it; `waits` for numbers that come back, or on which the
size of a result depends."""

_aten = torch.ops.aten
_MOVES = (_aten._to_copy.default, _aten.copy_.default)
_WAITS = {
    _aten._local_scalar_dense.default, _aten.equal.default, _aten.masked_select.default, _aten.nonzero.default,
    _aten._unique2.default, _aten.unique_dim.default,
}  # fmt: skip
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class Far(Tensor):
    """A tensor of the device; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        near = near.resolve_conj().resolve_neg()  # torch asks the outer tensor whether it is conjugated
        far: Far = Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), dtype=near.dtype, device=torch.device(NAME, 0)
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the numbers behind the tensors. Raises RuntimeError where processor and device are mixed."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(one, Far) for one in tensors)
    if here and func not in _MOVES:
        for one in tensors:
            if one.dim() and not isinstance(one, Far):
                raise RuntimeError(f"{func} got tensors of {NAME}:0 and of the processor {tuple(one.shape)}")
    wanted = kwargs.get("device")
    goes_far = here if wanted is None else torch.device(wanted).type == NAME
    if here:
        count["operations"] += 1
        leaves = func is _aten._to_copy.default and not goes_far
        into_near = func is _aten.copy_.default and not isinstance(args[0], Far)
        by_mask = func in _INDEXED and any(one is not None and one.dtype == torch.bool for one in args[1])
        count["waits"] += bool(leaves or into_near or by_mask or func in _WAITS)
    into_far = func is _aten.copy_.default and isinstance(args[0], Far) and not isinstance(args[1], Far)
    count["copies"] += into_far or (func is _aten._to_copy.default and goes_far and not here)
    out = func(*tree_map(_bring_near, args), **tree_map(_bring_near, dict(kwargs)))
    for one in tensors:
        if isinstance(one, Far) and out is one.near:  # an operation in place
            return one
    if func is _aten.copy_.default:
        return args[0]
    return tree_map(lambda leaf: Far(leaf) if goes_far and isinstance(leaf, Tensor) else leaf, out)


def _bring_near(leaf: Any) -> Any:
    if isinstance(leaf, Far):
        return leaf.near
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == NAME else leaf


def register() -> Callable[..., Any]:
    """Make the device known to torch; what is returned must be kept."""
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
    make = torch.tensor

    def make_tensor(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
        """As torch.tensor, which would ask the device for memory of its own."""
        made = make(data, **options)
        return (made if device is None else made.to(device)).requires_grad_(requires_grad)

    def make_like(self: Tensor, data: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        return make_tensor(data, dtype=dtype or self.dtype, device=self.device, **options)

    to_list = Tensor.tolist

    def list_numbers(self: Tensor) -> Any:
        """As Tensor.tolist, which looks into the memory of the device."""
        if not isinstance(self, Far):
            return to_list(self)
        count["waits"] += 1
        return to_list(self.near)

    Tensor.tolist = list_numbers  # type: ignore[method-assign, assignment]
    torch.tensor = make_tensor  # type: ignore[assignment]
    Tensor.new_tensor = make_like  # type: ignore[assignment]
    return library.fallback
