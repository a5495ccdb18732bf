"""What the incremental engine cannot follow it refuses; the default engine is right on every network, and neither
leaves a trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import assert_same, check_same, enliven, picture, sizes
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

import vizcnn
from vizcnn import testing
from vizcnn.errors import ParameterError, VizcnnWarning

SIZE = (24, 32)
OPTIONS: dict[str, Any] = {"window": 8, "stride": 6}


class Body(nn.Module):
    """A small network for the subclasses to do odd things in; always with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv1 = nn.Conv2d(3, 8, 3, 2, padding=1)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)
            enliven(
                nn.Sequential(self.conv1, self.conv2, nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.fc), picture(SIZE)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.said(F.relu(self.conv2(F.relu(self.conv1(x)))))

    def said(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Branching(Body):
    """Goes another way for each image of a batch, by what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        way = [one if one.mean().item() > 0.45 else -one for one in x]
        return super().forward(torch.stack(way))


class Deciding(Body):
    """Does the same for all images, after a look at a number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if bool((x.sum() > -1e9).all()) else -x)


class Numpy(Body):
    """Leaves torch in the middle."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        return self.said(F.relu(self.conv2(torch.from_numpy(np.sqrt(y.numpy() + 1)))))


class Listed(Body):
    """Keeps numbers as Python lists."""

    def forward(self, x: Tensor) -> Tensor:
        gains = [[max(row) for row in one] for one in x.mean(1).tolist()]  # (N, H)
        return super().forward(x * torch.tensor(gains)[:, None, :, None])


class NoMeta(Body):
    """Raises where there are no numbers."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            raise NotImplementedError("no dry runs here")
        return super().forward(x)


class OnlyPlain(Body):
    """Raises on everything that is no plain tensor."""

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is not Tensor:
            raise TypeError("a plain tensor is needed")
        return super().forward(x)


class Views(Body):
    """Changes a tensor through views of its memory."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        upper = y[:, :, : y.shape[2] // 2]
        upper += 1
        y.permute(0, 2, 3, 1)[:, ::3].mul_(0.5)
        first, second = y.chunk(2, 1)
        first.add_(second)
        return self.said(F.relu(self.conv2(y)))


class Strided(Body):
    """Looks at one memory in several ways."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv1(x).contiguous()
        n, c, h, w = y.shape
        overlapping = y.as_strided((n, c, h, w - 1), y.stride(), 1)
        return self.said(F.relu(self.conv2(overlapping)))


class Caching(Body):
    """Makes constants on its first run and keeps its last map."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp: Tensor | None = None
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.ramp is None:
            self.ramp = torch.linspace(0.5, 1, x.shape[3], device=x.device)
        y = F.relu(self.conv1(x * self.ramp))
        self.last = y
        return self.said(F.relu(self.conv2(self.last)))


class Counting(Body):
    """Counts its runs, in an attribute and in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.count: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.count += 1
        return super().forward(x)


class Blending(Body):
    """Mixes in what it remembers of the run before, though little enough to pass for rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x)) + 1e-9 * self.memory
        self.memory.mul_(0.9).add_(y.mean((0, 2, 3))[:, None, None])
        return self.said(F.relu(self.conv2(y)))


class Shapes(Body):
    """Decides by shapes alone."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = F.relu(self.conv1(x))
        if y.size(2) < y.size(3) and h > 8:
            y = F.pad(y, (0, 0, 0, y.shape[3] - y.shape[2]))
        for _ in range(w // 16):
            y = F.relu(self.conv2(y))
        return self.said(y.reshape(n, 8, *y.shape[2:]))


class Tracing(Body):
    """Asks whether autograd is recording."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            gain = x.detach().abs().mean((2, 3), keepdim=True)
        return super().forward(x * gain if not torch.is_grad_enabled() else x * gain.sigmoid())


class Checkpointed(Body):
    """Runs its middle through a function of autograd's own."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
            return x.roll(1, 3) * 2

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
            return grads[0].roll(-1, 3) * 2

    def forward(self, x: Tensor) -> Tensor:
        twice: Tensor = self.Twice.apply(self.conv1(x))  # type: ignore[no-untyped-call]
        return self.said(F.relu(self.conv2(twice)))


class Chosen(Body):
    """Goes on with the places that are largest, wherever they are."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        _, places = y.sum(1).flatten(1).topk(20, 1)  # (N, 20)
        picked = y.flatten(2).gather(2, places[:, None].expand(-1, 8, -1))
        return self.said(picked[..., None])


class Masked(Body):
    """Indexes with a mask, so that the shape depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x))
        means = torch.stack([one[:, one.sum(0) > one.sum(0).mean()].mean(1) for one in y])
        return self.said(means[:, :, None, None])


class Pooled(Body):
    """Pools with the places of the largest values and puts them back there."""

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(F.relu(self.conv1(x)), 2, return_indices=True)
        return self.said(F.relu(self.conv2(F.max_unpool2d(y, places, [2, 2]))))


class Elsewhere(Body):
    """Does something else where there are no numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.device.type == "cpu" else -x)


class Locked(Body):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return super().forward(x)


class Normed(Body):
    """Computes its weights anew in each run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = parametrizations.weight_norm(self.conv2)


class Hooked(Body):
    """Has somebody's hook on it, which changes what a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.register_forward_hook(lambda _module, _inputs, output: output.roll(1, 2) * 2)


class Shared(Body):
    """Uses one layer several times, at several sizes."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        small = F.relu(self.conv2(F.avg_pool2d(y, 2)))
        return self.said(F.relu(self.conv2(y)) + F.interpolate(small, size=y.shape[2:]))


ODD = [
    *(Branching, Deciding, Numpy, Listed, NoMeta, OnlyPlain, Views, Strided, Caching, Counting, Blending, Shapes),
    *(Tracing, Checkpointed, Chosen, Masked, Pooled, Elsewhere, Locked, Normed, Hooked, Shared),
]


@pytest.mark.parametrize("network", ODD)
def test_the_default_engine_is_right_on(network: Callable[[], nn.Module]) -> None:
    model, images = vizcnn.Model(network(), size=SIZE), picture(SIZE, count=2)
    targets = [0, "p(1)"]
    size = sizes(model, images, targets)
    plain = vizcnn.Occlusion(engine="plain", **OPTIONS)(vizcnn.Model(network(), size=SIZE), images, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VizcnnWarning)
        assert_same(vizcnn.Occlusion(**OPTIONS)(model, images, targets), plain, size)
    try:
        found = vizcnn.Occlusion(engine="incremental", **OPTIONS)(model, images, targets)
    except ParameterError:
        return
    assert_same(found, plain, size)


@pytest.mark.parametrize("network", [Branching, Deciding, Numpy, Listed, Masked, NoMeta, Locked])
def test_a_network_that_cannot_be_followed_is_refused_or_warned_of_once(network: Callable[[], nn.Module]) -> None:
    model, images = vizcnn.Model(network(), size=SIZE), picture(SIZE, count=2)
    with pytest.raises(ParameterError, match="Occlusion on "):
        vizcnn.Occlusion(engine="incremental", **OPTIONS)(model, images, 0)
    with pytest.warns(VizcnnWarning) as warned:
        found = vizcnn.Occlusion(**OPTIONS)(model, images, 0)
    assert len(warned) == 1
    assert found.provenance.details["engine"] == "plain"


@pytest.mark.parametrize("network", [Shapes, Counting, Caching, Normed, Hooked, Shared])
def test_what_a_network_does_beside_computing_is_no_obstacle(network: Callable[[], nn.Module]) -> None:
    check_same(vizcnn.Model(network(), size=SIZE), picture(SIZE), [0, "conv1:3", "conv2:1@2,2"], **OPTIONS)


@pytest.mark.parametrize("engine", ["auto", "incremental"])
def test_the_network_is_left_as_it_was(engine: Literal["auto", "incremental"]) -> None:
    model, images = testing.delicate_model(), picture((16, 16), count=2)
    kept, weights = images.clone(), {name: value.clone() for name, value in model.network.state_dict().items()}
    before = testing.state_of(model)
    vizcnn.Occlusion(window=4, stride=4, engine=engine)(model, images, ["a", "conv:2"])
    assert testing.state_of(model) == before
    assert torch.equal(images, kept)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, weights[name])
    model(kept).sum().backward()


class CtrlC(TorchDispatchMode):
    """Somebody presses Ctrl-C in the n-th convolution, whoever asks for it."""

    def __init__(self, n: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n, self.convolutions = n, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.convolutions += "convolution" in str(func)
        if "convolution" in str(func) and self.convolutions == self.n:
            raise KeyboardInterrupt
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
def test_ctrl_c_anywhere_leaves_no_trace_and_keeps_what_was_computed(share: float) -> None:
    model, images = testing.delicate_model(), picture((16, 16), count=2)
    probe = vizcnn.Occlusion(window=4, stride=4, batch=2, engine="incremental")
    with CtrlC() as counted:
        whole = probe(model, images, "a").values
    before = testing.state_of(model)
    with pytest.raises(KeyboardInterrupt) as caught, CtrlC(round(share * counted.convolutions)):
        probe(model, images, "a")
    assert testing.state_of(model) == before
    if isinstance(caught.value, vizcnn.Interrupted):
        assert isinstance(caught.value.result, vizcnn.Heatmap)
        assert caught.value.result.partial
        found = caught.value.result.values
        np.testing.assert_allclose(found, np.where(np.isnan(found), np.nan, whole[: len(found)]), atol=1e-5)


def test_the_same_numbers_twice(tiny: vizcnn.Model) -> None:
    first, second = (vizcnn.Occlusion(window=16, stride=16)(tiny, picture((64, 64)), "lemon") for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
