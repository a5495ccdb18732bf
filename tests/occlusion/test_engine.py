from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

import vizcnn
from vizcnn.models.layers.dryrun import copy_for_dry_run, find_tensors
from vizcnn.models.targets import OUTPUT
from vizcnn.occlusion.incremental import (
    Engine,
    Plan,
    Recomputation,
    Untraceable,
    compute_executed_share,
    compute_ideal_share,
    count_flops,
    estimate_memory,
    record,
)
from vizcnn.occlusion.incremental.engine import _run as run_step
from vizcnn.occlusion.kernels.packed import Packed
from vizcnn.occlusion.windows import place_windows


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def half_changed(x: Tensor) -> Tensor:
    x[:, :2].relu_()
    return x


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (half_changed, "a change in place of shared memory"),
        (lambda x: F.dropout(x, training=True), "random numbers"),
        (lambda x: x * (4 if len(x) == 2 else 5), "a number changes with the batch"),
        (lambda x: x if x.sum() > 0 else -x, "a run without numbers fails"),
        (lambda x: x + torch.full((len(x), 1, 1, 1), 0.5), "a constant changes with the batch"),
    ],
)
def test_what_cannot_be_followed_is_said(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(Untraceable, match=reason):
        record(vizcnn.Model(Applied(function), size=12), (12, 12), [OUTPUT])


def test_what_is_hung_on_a_copy_does_not_hang_on_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    other = copy_for_dry_run(vizcnn.Model(network, size=12)).network
    for mine, theirs in zip(network.modules(), other.modules(), strict=True):
        theirs.register_forward_hook(lambda *_: None)
        assert mine is not theirs
        assert not mine._forward_hooks
    assert [id(p) for p in network.parameters()] == [id(p) for p in other.parameters()]


def chain() -> Engine:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16 * 16, 5)
    )
    return Engine(record(vizcnn.Model(network, size=20), (20, 20), [OUTPUT]))


def test_flops_are_twice_the_multiplications() -> None:
    assert count_flops(chain()) == 2 * (8 * 18 * 18 * 27 + 8 * 16 * 16 * 36 + 8 * 16 * 16 * 5)


def test_memory_of_full_runs_is_that_of_the_two_largest_neighbours() -> None:
    whole = Plan(np.arange(7), {}, {}, {})
    assert estimate_memory(chain(), [whole], 4) == 4 * 7 * (8 * 18 * 18 + 8 * 16 * 16)


class Alive(TorchDispatchMode):
    """The most bytes that the tensors made under it took at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors, self.most = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.tensors.update(dict.fromkeys(find_tensors(out)))
        memories = [tensor.untyped_storage() for tensor in self.tensors]
        self.most = max(self.most, sum({m.data_ptr(): m.nbytes() for m in memories}.values()))
        return out


@torch.no_grad()
def test_a_batch_holds_no_more_than_the_estimate_says() -> None:
    layers = (each for _ in range(4) for each in (nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()))
    network = nn.Sequential(nn.Conv2d(3, 32, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    engine = Engine(record(vizcnn.Model(network, size=64), (64, 64), [OUTPUT]))
    regions, image = engine.find_regions(place_windows((64, 64), (8, 8), (8, 8))), torch.rand(3, 64, 64)
    plan = engine.plan(regions, np.arange(len(regions[0].rows[0])))
    with Alive() as alive:
        Recomputation(engine, image, torch.zeros_like(image), plan.sources).run(plan)
    assert alive.most < 1.1 * estimate_memory(engine, [plan], 4)


def test_the_ideal_share_of_the_work_is_what_one_window_touches() -> None:
    engine = chain()
    window = np.array([[8, 12, 8, 12]])  # 4 x 4 px, far from the border: 6 x 6 places, then 8 x 8
    regions = engine.find_regions(window)
    first, second, head = 8 * 27, 8 * 36, 8 * 16 * 16 * 5
    work = first * 6 * 6 + second * 8 * 8 + head
    assert compute_ideal_share(engine, regions) == pytest.approx(work / (first * 18 * 18 + second * 16 * 16 + head))
    assert compute_executed_share(engine, [engine.plan(regions, np.array([0]))]) == pytest.approx(
        compute_ideal_share(engine, regions)
    )


def test_a_batch_of_unlike_windows_costs_more_than_the_ideal() -> None:
    engine, windows = chain(), place_windows((20, 20), (4, 4), (4, 4))
    regions = engine.find_regions(windows)
    together = compute_executed_share(engine, [engine.plan(regions, np.arange(len(windows)))])
    assert compute_ideal_share(engine, regions) < together < 1


def norm(channels: int) -> nn.BatchNorm2d:
    """As after training: the first channel is turned over, the second dead, and the third all but dead."""
    found = nn.BatchNorm2d(channels)
    for values, low, high in ((found.running_mean, -1, 1), (found.running_var, 0.5, 2), (found.bias, -0.5, 0.5)):
        nn.init.uniform_(values, low, high)  # type: ignore[arg-type]
    nn.init.uniform_(found.weight, 0.5, 1)
    with torch.no_grad():
        found.weight[:3] = torch.tensor([-0.7, 0, 1e-20])
    return found


class Joined(nn.Module):
    """Convolutions that can be packed with what follows, and such whose outcome is also needed elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), norm(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(self.first(x)).relu_()
        both = self.second(normed)
        out: Tensor = (both.relu() - both)[..., 1:-1, 1:-1] + self.third(self.second(normed).relu())
        return out.mean((2, 3))


class Residual(nn.Module):
    """Shortcuts: with convolutions of their own, onto itself, and with what is read changed before the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8)
        self.third, self.fourth = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.fifth = nn.Conv2d(3, 8, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        both = F.relu6(self.norm(self.first(x)) + self.second(x))
        both = F.relu6(self.fifth(x) + both)
        both = both + self.third(both)
        late = self.fourth(both)
        changed = both.mul_(2) - 1
        out: Tensor = (late + changed).mean((2, 3))
        return out


class Before(nn.Module):
    """Activated before kernels of one place: with channels of its own, as in DenseNet, and some that others need."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.other = nn.Conv2d(3, 6, 3), norm(12), norm(6)
        self.second, self.third = nn.Conv2d(12, 8, 1, stride=(1, 2)), nn.Conv2d(6, 8, 1, bias=False)
        self.dense = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        wide = self.second(self.norm(torch.cat([one, one.tanh()], 1)).relu())
        narrow = self.third(self.other(one).relu()).mean((2, 3))
        out: Tensor = self.dense(wide.mean((2, 3)) + narrow + one.mean((1, 2, 3))[:, None])
        return out


class Pooled(nn.Module):
    """Means over places behind kernels of 1x1, as in DenseNet: such that can go first, and such that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.before, self.behind = nn.Conv2d(3, 12, 3), norm(12), norm(8)
        self.second, self.third, self.fourth = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.avg_pool2d(self.second(self.before(self.first(x)).relu()), 2)  # goes first
        two = F.avg_pool2d(self.behind(self.second(self.first(x))), (3, 2), (2, 1)).relu()  # with the norm
        padded = F.avg_pool2d(self.third(one), 2, padding=1)
        shared = self.third(two)
        late = F.avg_pool2d(self.fourth(padded), 3, 1)
        out: Tensor = late.mean((2, 3)) + F.avg_pool2d(shared, 2).mean((2, 3)) + shared.mean((2, 3))
        return out


class Wide(nn.Module):
    """Channels that windows touch unequally far are joined, and added again to what a convolution makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 5, padding=2)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.near(x), self.far(x)], 1)
        out: Tensor = (self.last(joined.tanh()) + joined).relu().mean((2, 3))
        return out


class Deep(nn.Module):
    """So many channels that Winograd's algorithm pays: with a norm, a sum and an activation behind, and without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other, self.norm = nn.Conv2d(3, 192, 1), nn.Conv2d(3, 200, 1), norm(200)
        self.second, self.third = nn.Conv2d(192, 200, 3, padding=1, bias=False), nn.Conv2d(200, 193, 3, padding=(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        both = F.relu6(self.norm(self.second(self.first(x))) + self.other(x))
        out: Tensor = self.third(both).mean((2, 3))
        return out


@pytest.mark.parametrize(
    ("kind", "count"), [(Joined, 4), (Residual, 5), (Before, 3), (Pooled, 7), (Wide, 3), (Deep, 4)]
)
@pytest.mark.parametrize("packs", [True, False])
@torch.no_grad()
def test_fused_steps_do_what_the_network_does(
    kind: type[nn.Module], count: int, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: packs)
    torch.manual_seed(0)
    network, image = kind().eval(), torch.rand(3, 20, 20)
    model = vizcnn.Model(network, size=20)
    engine = Engine(record(model, (20, 20), [OUTPUT]))
    fused = [step for step in engine.body if isinstance(step.func, Packed)]
    assert len(fused) == (count if packs else 0)
    values = {0: image[None].contiguous(memory_format=torch.channels_last)}
    for step in engine.body:
        values |= run_step(step, step.fill_in(values.__getitem__, 1))
    found = engine.run_tail(values)[OUTPUT]
    torch.testing.assert_close(found, model(image[None]), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("kind", [Joined, Residual, Before, Pooled, Wide, Deep])
def test_fused_steps_follow_windows(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, image = vizcnn.Model(kind().eval(), size=20), torch.rand(1, 3, 20, 20)
    exact, found = (
        vizcnn.Occlusion(window=5, stride=3, engine=engine)(model, image, target=1, progress=False).values
        for engine in ("plain", "incremental")
    )
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


@torch.no_grad()
def test_a_norm_before_a_kernel_of_one_place_costs_one_pass() -> None:
    engine = Engine(record(vizcnn.Model(Before().eval(), size=20), (20, 20), [OUTPUT]))
    names = [step.name for step in engine.body]
    assert names.count("clamp") == 2
    assert "native_batch_norm" not in names
    assert "relu" not in names


@torch.no_grad()
def test_a_mean_over_places_goes_before_a_kernel_of_one_place() -> None:
    engine = Engine(record(vizcnn.Model(Pooled().eval(), size=20), (20, 20), [OUTPUT]))
    sizes = [engine.shapes[step.outputs[0]] for step in engine.body if step.name == "convolution"]
    assert sizes == [(12, 18, 18), (8, 9, 9), (12, 18, 18), (8, 8, 17), (6, 9, 9), (6, 8, 17), (6, 5, 5)]
    whole = sum(2 * channels * h * w * reads for channels, h, w, reads in [(12, 18, 18, 27), (8, 18, 18, 12)]) * 2
    assert count_flops(engine) == whole + 2 * 6 * (9 * 9 + 8 * 17) * 8 + 2 * 6 * 5 * 5 * 6  # of the network as it is
