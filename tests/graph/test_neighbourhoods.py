"""What the one parser of operations' geometry says, against what the operations do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vizcnn.graph.geometry import (
    Arguments,
    Neighbourhood,
    find_neighbourhood,
    find_normalized_axes,
    find_reduced_axes,
    has_neighbourhood,
    name_operation,
)
from vizcnn.models.layers.dryrun import name_arguments


class Last(TorchDispatchMode):
    """Keeps the name and arguments of the last operation that is accepted."""

    def __init__(self, accepts: Callable[[str], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.accepts, self.name, self.args = accepts, "", dict[str, Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.accepts(name_operation(func)):
            self.name, self.args = name_operation(func), name_arguments(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def parsed(run: Callable[[Tensor], Tensor], image: Tensor, accepts: Callable[[str], bool]) -> tuple[str, Arguments]:
    with Last(accepts) as last, torch.no_grad():
        run(image)
    return last.name, last.args


def places(reads: Neighbourhood, axis: int, output: int, length: int) -> set[int]:
    """The inputs of an output along one axis, by the sentence in Neighbourhood's docstring."""
    stride, padding = reads.stride[axis], reads.padding[axis]
    offsets = [k * reads.dilation[axis] for k in range(reads.kernel[axis])]
    if reads.transposed:
        return {y for y in range(length) for offset in offsets if y * stride - padding + offset == output}
    return {output * stride - padding + offset for offset in offsets} & {*range(length)}


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


SLIDING: dict[str, Callable[[Tensor], Tensor]] = {
    "a plain convolution": lambda x: F.conv2d(x, ones(1, 1, 3, 3)),
    "a convolution with everything": lambda x: F.conv2d(
        x, ones(1, 1, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)
    ),
    "a convolution that keeps the size": lambda x: F.conv2d(x, ones(1, 1, 3, 5), padding="same", dilation=(2, 1)),
    "a transposed convolution": lambda x: F.conv_transpose2d(
        x, ones(1, 1, 3, 2), stride=(2, 3), padding=(1, 0), dilation=(2, 1)
    ),
    "a mean": lambda x: F.avg_pool2d(x, (3, 2)),
    "a mean with everything": lambda x: F.avg_pool2d(x, (3, 4), stride=(1, 2), padding=(1, 2)),
    "a maximum": lambda x: F.max_pool2d(x, 2),
    "a maximum with everything": lambda x: F.max_pool2d(x, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
}


@pytest.mark.parametrize("run", SLIDING.values(), ids=SLIDING.keys())
def test_a_neighbourhood_is_what_an_output_depends_on(run: Callable[[Tensor], Tensor]) -> None:
    image = torch.zeros(1, 1, 9, 11)
    name, args = parsed(run, image, has_neighbourhood)
    reads = find_neighbourhood(name, args)
    assert reads is not None
    changed = torch.zeros(9, 11, *run(image).shape[2:], dtype=torch.bool)
    for y in range(9):
        for x in range(11):
            moved = image.clone()
            moved[0, 0, y, x] = 1
            changed[y, x] = (run(moved) != run(image))[0, 0]
    for v in range(changed.shape[2]):
        for u in range(changed.shape[3]):
            rows, columns = places(reads, 0, v, 9), places(reads, 1, u, 11)
            expected = {(y, x) for y in rows for x in columns}
            assert {(y, x) for y, x in changed[:, :, v, u].nonzero().tolist()} == expected
    assert (reads.beyond < 0) == ("max_pool" in name)


def test_operations_without_a_neighbourhood_of_rows_and_columns() -> None:
    assert find_neighbourhood("relu", {}) is None
    assert not has_neighbourhood("relu")
    name, args = parsed(lambda x: F.conv1d(x[0], ones(1, 9, 3)), torch.zeros(1, 1, 9, 11), has_neighbourhood)
    assert name == "convolution"
    assert has_neighbourhood(name)
    assert find_neighbourhood(name, args) is None


@pytest.mark.parametrize(
    ("run", "axes"),
    [
        (lambda x: x.sum(), [0, 1, 2, 3]),
        (lambda x: x.mean((-1, 2)), [3, 2]),
        (lambda x: x.amax(1, keepdim=True), [1]),
        (lambda x: x.softmax(-2), [2]),
    ],
)
def test_axes_that_a_reduction_goes_over(run: Callable[[Tensor], Tensor], axes: Sequence[int]) -> None:
    _, args = parsed(run, torch.zeros(2, 3, 4, 5), lambda name: name in ("sum", "mean", "amax", "_softmax"))
    assert find_reduced_axes(args, 4) == axes


def test_axes_that_a_layer_norm_goes_over() -> None:
    _, args = parsed(lambda x: F.layer_norm(x, (4, 5)), torch.zeros(2, 3, 4, 5), lambda name: "layer_norm" in name)
    assert [*find_normalized_axes(args, 4)] == [2, 3]


def test_names_are_those_of_the_schema_without_the_mark_of_operations_in_place() -> None:
    assert name_operation(torch.ops.aten.add_.Tensor) == "add"
    assert name_operation(torch.ops.aten._softmax.default) == "_softmax"
