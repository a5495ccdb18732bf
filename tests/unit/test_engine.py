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
from vizcnn.dryrun import tensors_in
from vizcnn.incremental import (
    Engine,
    Plan,
    Prepared,
    Untraceable,
    executed_share,
    ideal_share,
    memory,
    per_image,
    record,
)
from vizcnn.incremental.fused import Packed
from vizcnn.targets import OUTPUT
from vizcnn.windows import sliding


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


def chain() -> Engine:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16 * 16, 5)
    )
    return Engine(record(vizcnn.Model(network, size=20), (20, 20), [OUTPUT]))


def test_flops_are_twice_the_multiplications() -> None:
    assert per_image(chain()) == 2 * (8 * 18 * 18 * 27 + 8 * 16 * 16 * 36 + 8 * 16 * 16 * 5)


def test_memory_of_full_runs_is_that_of_the_two_largest_neighbours() -> None:
    whole = Plan(np.arange(7), {}, {}, {})
    assert memory(chain(), [whole], 4) == 4 * 7 * (8 * 18 * 18 + 8 * 16 * 16)


class Alive(TorchDispatchMode):
    """The most bytes that the tensors made under it took at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors, self.most = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.tensors.update(dict.fromkeys(tensors_in(out)))
        memories = [tensor.untyped_storage() for tensor in self.tensors]
        self.most = max(self.most, sum({m.data_ptr(): m.nbytes() for m in memories}.values()))
        return out


@torch.no_grad()
def test_a_batch_holds_no_more_than_the_price_says() -> None:
    layers = (each for _ in range(4) for each in (nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()))
    network = nn.Sequential(nn.Conv2d(3, 32, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    engine = Engine(record(vizcnn.Model(network, size=64), (64, 64), [OUTPUT]))
    touched, image = engine.touched(sliding((64, 64), (8, 8), (8, 8))), torch.rand(3, 64, 64)
    plan = engine.planned(touched, np.arange(len(touched[0].top)))
    with Alive() as alive:
        Prepared(engine, image, torch.zeros_like(image), plan.selected).run(plan)
    assert alive.most < 1.1 * memory(engine, [plan], 4)


def test_the_ideal_share_of_the_work_is_what_one_window_touches() -> None:
    engine = chain()
    window = np.array([[8, 12, 8, 12]])  # 4 x 4 px, far from the border: 6 x 6 places, then 8 x 8
    touched = engine.touched(window)
    first, second, head = 8 * 27, 8 * 36, 8 * 16 * 16 * 5
    work = first * 6 * 6 + second * 8 * 8 + head
    assert ideal_share(engine, touched) == pytest.approx(work / (first * 18 * 18 + second * 16 * 16 + head))
    assert executed_share(engine, [engine.planned(touched, np.array([0]))]) == pytest.approx(
        ideal_share(engine, touched)
    )


def test_a_batch_of_unlike_windows_costs_more_than_the_ideal() -> None:
    engine, windows = chain(), sliding((20, 20), (4, 4), (4, 4))
    touched = engine.touched(windows)
    together = executed_share(engine, [engine.planned(touched, np.arange(len(windows)))])
    assert ideal_share(engine, touched) < together < 1


class Joined(nn.Module):
    """Convolutions that can be packed with what follows, and such whose outcome is also needed elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8)
        nn.init.uniform_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(self.first(x)).relu_()
        both = self.second(normed)
        out: Tensor = (both.relu() - both)[..., 1:-1, 1:-1] + self.third(self.second(normed).relu())
        return out.mean((2, 3))


@pytest.mark.parametrize(("dtype", "near"), [(None, 1e-6), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("packs", [True, False])
@torch.no_grad()
def test_fused_steps_do_what_the_network_does(
    dtype: torch.dtype | None, near: float, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: packs)
    network, image = Joined().eval(), torch.rand(3, 20, 20)
    model = vizcnn.Model(network, size=20)
    engine = Engine(record(model, (20, 20), [OUTPUT]), dtype=dtype)
    fused = [step for step in engine.body if isinstance(step.func, Packed)]
    assert len(fused) == (4 if packs else 0)
    prepared = Prepared(engine, image, torch.zeros_like(image), ())
    found = engine.finished(prepared.crossing)[OUTPUT]
    torch.testing.assert_close(found, model(image[None]), atol=near, rtol=near)
