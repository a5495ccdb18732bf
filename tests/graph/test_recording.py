"""The recorded graph, run again step by step with real numbers, against the network itself; and what has no graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support import picture, small_cnn
from support_graphs import Apply
from torch import Tensor, nn

import vizcnn
from vizcnn.graph.recording import Graph, PerImage, Ref, Step, Untraceable, find_last_uses, find_refs, record
from vizcnn.models.targets import OUTPUT

SIZE = (10, 9)


def convolve_channels_alone(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return F.avg_pool2d(x.reshape(n * c, 1, h, w), 3, 1, 1).view(n, c, h, w)  # (N C, 1, H, W) in between


def change_under_the_old_name(x: Tensor) -> Tensor:
    y = x * 2
    y.relu_()
    y.add_(x)
    return y


def leave_a_branch_unused(x: Tensor) -> Tensor:
    x.sigmoid().exp()
    return x.relu()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "images times channels as images": convolve_channels_alone,
    "a tensor that grows with the batch": lambda x: x + x.new_full((len(x), 4, 1, 1), 0.5),
    "written into another": lambda x: torch.mul(x, 2, out=torch.empty_like(x)),
    "in place": change_under_the_old_name,
    "parts": lambda x: torch.cat([part * (i + 1) for i, part in enumerate(x.split([1, 3], 1))], 1),
    "images last": lambda x: (x.permute(1, 2, 3, 0) * 2).permute(3, 0, 1, 2),
    "a constant on the image's device": lambda x: x + torch.full((1, 4, 1, 1), 0.5, device=x.device),
    "an unused branch": leave_a_branch_unused,
}


def make_network(function: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """A function between two convolutions, and a classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            Apply("", function),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 4 * 3, 5),
        ).eval()


NETWORKS: dict[str, nn.Module] = {name: make_network(function) for name, function in FUNCTIONS.items()}
NETWORKS["a small network"] = small_cnn()
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def make_model(network: nn.Module) -> vizcnn.Model:
    return vizcnn.Model(network, size=SIZE, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])


@torch.no_grad()
def run_steps(graph: Graph, images: Tensor, left_out: Collection[int] = ()) -> dict[int, Tensor]:
    """Every value of the graph for these images (N, C, H, W), as it is after the last step."""
    values = {0: images.clone()}
    for i, step in enumerate(graph.steps):
        if i in left_out:
            continue
        out = step.func(**step.fill_in(values.__getitem__, len(images)))
        values |= dict(zip(step.outputs, [out] if isinstance(out, Tensor) else out, strict=True))
    return values


@torch.no_grad()
def run_network(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """What the layers and the network give, by plain hooks."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.update({name: output.clone()})

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    found[OUTPUT] = make_model(network)(images)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("images", [1, 2, 5])
@each_network
def test_the_steps_give_what_the_network_gives_for_any_number_of_images(network: nn.Module, images: int) -> None:
    inputs = picture(SIZE, count=images)
    graph = record(make_model(network), SIZE, ["0", "3", OUTPUT])  # layer 3 is followed by an operation in place
    values = run_steps(graph, inputs)
    expected = run_network(network, inputs, ["0", "3"])
    assert graph.wanted.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(values[graph.wanted[name].value], tensor, rtol=1e-6, atol=1e-6)


@each_network
def test_shapes_are_those_of_one_image(network: nn.Module) -> None:
    graph = record(make_model(network), SIZE, [OUTPUT])
    two, five = (run_steps(graph, picture(SIZE, count=images)) for images in (2, 5))
    for number, value in five.items():
        batched = (len(two[number]), len(value)) == (2, 5) and two[number].shape[1:] == value.shape[1:]
        assert graph.shapes[number] == (tuple(value.shape[1:]) if batched else None)


def test_numbers_that_grow_with_the_batch_are_stored_per_image() -> None:
    graph = record(make_model(NETWORKS["images times channels as images"]), SIZE, [OUTPUT])
    sizes = [step.args["size"] for step in graph.steps if step.name == "view"]
    assert sizes[:2] == [[PerImage(4), 1, *SIZE], [PerImage(1), 4, *SIZE]]


@each_network
def test_without_any_one_step_the_rest_cannot_run(network: nn.Module) -> None:
    """So no step is there in vain."""
    graph, images = record(make_model(network), SIZE, [OUTPUT]), picture(SIZE)
    for i in range(len(graph.steps)):
        with pytest.raises(KeyError):
            run_steps(graph, images, left_out={i})[graph.wanted[OUTPUT].value]


def test_steps_behind_the_layer_and_beside_it_are_dropped() -> None:
    names = [
        [step.name for step in record(make_model(NETWORKS["an unused branch"]), SIZE, [layer]).steps]
        for layer in ("0", "1", OUTPUT)
    ]
    normalising = ["sub", "div"]
    assert names[0] == [*normalising, "convolution", "clone"]
    assert names[1] == [*normalising, "convolution", "relu", "clone"]
    assert not {"sigmoid", "exp"}.intersection(names[2])
    assert names[2][-1] == "addmm"


@st.composite
def step_lists(draw: st.DrawFn) -> list[Step]:
    """Steps of one or two outputs that read whatever came before; value 0 is the image."""
    steps: list[Step] = []
    values = 1
    for _ in range(draw(st.integers(1, 8))):
        reads = [Ref(number) for number in draw(st.lists(st.integers(0, values - 1), min_size=1, max_size=3))]
        made = draw(st.integers(1, 2))
        steps.append(Step(None, {"first": reads[0], "others": reads[1:]}, tuple(range(values, values + made))))
        values += made
    return steps


@given(step_lists(), st.sets(st.integers(0, 16)))
def test_a_value_is_freed_as_soon_as_no_later_step_reads_it(steps: list[Step], kept: set[int]) -> None:
    expected: dict[int, set[int]] = {}
    alive = {0} if any(0 in find_refs(step.args) for step in steps) else set[int]()
    for i, step in enumerate(steps):
        alive |= {*step.outputs}
        still_read = {number for later in steps[i + 1 :] for number in find_refs(later.args)}
        if freed := alive - still_read - kept:
            expected[i] = freed
        alive -= freed
    found = find_last_uses(steps, kept)
    assert {i: set(numbers) for i, numbers in found.items()} == expected
    assert all(len(numbers) == len(set(numbers)) for numbers in found.values())


def change_a_part(x: Tensor) -> Tensor:
    x[:, :2].relu_()
    return x


REASONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "looks at values": (lambda x: x if x.sum() > 0 else -x, "a run without numbers fails"),
    "random numbers": (lambda x: F.dropout(x, training=True), "random numbers"),
    "random numbers in place": (lambda x: (x * 1).bernoulli_(0.5), "random numbers"),
    "shared memory": (change_a_part, "a change in place of shared memory"),
    "a constant overwritten": (lambda x: x + torch.zeros(4).add_(x.mean((0, 2, 3)))[:, None, None], "was there before"),
    "other operations": (lambda x: x.relu() if len(x) == 2 else x.tanh(), "other things to three images than to two"),
    "more operations": (lambda x: x.relu() if len(x) == 2 else x.relu() + 1, "other things to three images"),
    "another number": (lambda x: x * (4 if len(x) == 2 else 5), "a number changes with the batch"),
    "not so many per image": (lambda x: x * (len(x) + 1), "a number changes with the batch"),
    "no whole number per image": (lambda x: x * (len(x) / 2), "an argument changes with the batch"),
    "another constant": (lambda x: x + torch.full((len(x), 1, 1, 1), 0.5), "a constant changes with the batch"),
    "another structure": (lambda x: x.sum([1, 2] if len(x) == 2 else [1], True), "arguments change with the batch"),
}


@pytest.mark.parametrize(("function", "reason"), REASONS.values(), ids=REASONS)
def test_what_has_no_graph_is_refused_with_the_reason(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(Untraceable, match=reason):
        record(vizcnn.Model(nn.Sequential(nn.Conv2d(3, 4, 3), Apply("", function)), size=SIZE), SIZE, [OUTPUT])


def test_a_layer_that_does_not_run_is_named() -> None:
    network = make_network(torch.relu)
    network[1].add_module("idle", nn.ReLU())
    with pytest.raises(Untraceable, match=r"layer '1\.idle' did not run"):
        record(make_model(network), SIZE, ["0", "1.idle"])


class Remember(nn.Module):
    """Keeps what it was given last."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x


def test_recording_leaves_no_trace_on_the_network() -> None:
    network = make_network(torch.relu).train()
    network[1] = Remember()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    record(make_model(network), SIZE, ["0", OUTPUT])
    assert "last" not in vars(network[1])
    assert all(module.training and not module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
