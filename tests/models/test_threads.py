"""Several threads may ask networks at once: the answers are those of one after the other, and no network is changed."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizcnn
from vizcnn.models.threads import round_as_float32
from vizcnn.probing import registry
from vizcnn.process import ignore_warnings
from vizcnn.testing import delicate_model, state_of

OPTIONS: dict[str, dict[str, Any]] = {  # small, and without choices that depend on the time a run took
    "dream": {"octaves": 1, "steps": 2, "size": 24},
    "maximize": {"steps": 3, "copies": 2},
    "occlusion": {"window": 6, "stride": 5, "engine": "incremental"},
    "rise": {"masks": 20},
    "saliency": {"method": "smoothgrad", "samples": 4},
    "style": {"steps": 2, "size": 24},
}


BACKENDS: Any = torch.backends


class Shared(nn.Module):
    """A head of its own on a body that other networks use too."""

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(6, classes)
        nn.init.constant_(self.fc.bias, 1.0)  # deconvnet projects active units only

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


@pytest.fixture
def models() -> list[vizcnn.Model]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    heads = [vizcnn.Model(Shared(body, classes).train(), size=16) for classes in (3, 4)]
    return [delicate_model(), vizcnn.Model(Shared(body, 5).eval(), size=16), *heads]


def job(name: str, model: vizcnn.Model, seed: int) -> Callable[[], dict[str, Any]]:
    probe = registry.get(name)(**OPTIONS.get(name, {}))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    given: dict[str, Any] = {"images": images} if probe.needs_images else {}
    if name == "top-images":
        given["target"] = "0:1" if len(model.layers()) < 3 else f"{next(iter(model.layers()))}:1"
    return lambda: probe(model, **given, seed=seed, progress=False).arrays()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
def test_eight_threads_get_the_answers_of_one(models: list[vizcnn.Model]) -> None:
    jobs = [job(name, model, seed) for name in registry.list_names() for seed, model in enumerate(models)]
    before = [state_of(model) for model in models]
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as alone:
        expected = list(alone.map(lambda run: run(), jobs))
    order = random.Random(0).sample(range(len(jobs)), len(jobs))
    with ThreadPoolExecutor(8, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = dict(zip(order, pool.map(lambda i: jobs[i](), order), strict=True))
    for i, right in enumerate(expected):
        assert found[i].keys() == right.keys()
        for key in right:
            np.testing.assert_array_equal(found[i][key], right[key], err_msg=f"job {i}: {key}")
    assert [state_of(model) for model in models] == before


def test_a_run_in_another_thread_is_none_of_a_probes() -> None:
    """A person's own thread runs the network while a probe has its hooks on it."""
    model = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)), size=16)
    theirs, ours = torch.zeros(1, 3, 16, 16), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = vizcnn.FeatureMaps(layers=("0",))(model, ours, progress=False).arrays()

    class Busy(nn.Module):
        """Lets another thread run the first network in the middle of its own run."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.other = inner, True

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner[1](self.inner[0](x))  # type: ignore[index]
            if self.other:
                self.other = False
                thread = threading.Thread(target=lambda: self.inner(theirs))
                thread.start()
                thread.join()
                self.other = True
            out: Tensor = self.inner[3](self.inner[2](x))  # type: ignore[index]
            return out

    busy = vizcnn.Model(Busy(model.network), size=16)
    found = vizcnn.FeatureMaps(layers=("inner.0",))(busy, ours, progress=False).arrays()
    np.testing.assert_array_equal(found["image0.inner.0"], expected["image0.0"])


def test_warnings_are_ignored_in_one_thread_and_nobody_waits() -> None:
    inside, leave, found = threading.Event(), threading.Event(), list[str]()

    def ignoring() -> None:
        with ignore_warnings():
            inside.set()
            warnings.warn("unseen", UserWarning, stacklevel=1)
            leave.wait(5)
            warnings.warn("unseen", UserWarning, stacklevel=1)

    def keeping(message: Any, *_: Any, **__: Any) -> None:
        found.append(str(message))

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(warnings, "showwarning", keeping)
        before = [*warnings.filters]
        other = threading.Thread(target=ignoring)
        other.start()
        inside.wait(5)
        warnings.warn("seen", UserWarning, stacklevel=1)
        with ignore_warnings("odd"):  # does not wait for the other
            warnings.warn("odd message", UserWarning, stacklevel=1)
            warnings.warn("other message", UserWarning, stacklevel=1)
        leave.set()
        other.join(5)
        assert found == ["seen", "other message"]
        assert warnings.filters == before


def test_a_probe_inside_a_probe_does_not_wait_for_itself() -> None:
    model = delicate_model()
    with model.borrowed(), model.borrowed():
        assert not model.network.training
    assert model.network.training


def test_random_numbers_go_on_as_if_nobody_had_asked() -> None:
    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 0 * torch.rand(())).flatten(1)

    model, image = vizcnn.Model(Drawing(), size=4), torch.rand(1, 3, 4, 4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda t: vizcnn.Saliency()(model, image, t, progress=False), range(12)))
    assert torch.equal(torch.rand(3), expected)


class Rounding(nn.Module):
    """Remembers how torch was told to round float32 while it ran; runs into a wall where `wall` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wall = nn.Conv2d(3, 2, 3), False
        self.seen: set[str] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen |= {BACKENDS.cudnn.conv.fp32_precision, BACKENDS.cuda.matmul.fp32_precision}
        if self.wall:
            raise RuntimeError("wall")
        result: Tensor = self.conv(x).mean((2, 3))
        return result


def read_rounding() -> tuple[Any, ...]:
    backends = BACKENDS
    new = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv)
    old = (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision())
    return (*(each.fp32_precision for each in new), *old)


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
@pytest.mark.parametrize("wall", [False, True])
def test_float32_is_not_rounded_further_meanwhile_and_settings_come_back(chosen: str, wall: bool) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(chosen)
    try:
        found, network = read_rounding(), Rounding()
        assert found[0] == "tf32"  # torch's own choice for convolutions on cards
        network.wall = wall
        with pytest.raises(vizcnn.errors.NetworkError, match="wall") if wall else nullcontext():
            vizcnn.Saliency()(vizcnn.Model(network, size=8), torch.rand(2, 3, 8, 8), 0, progress=False)
        assert network.seen <= {"ieee", "none"}
        assert read_rounding() == found
    finally:
        torch.set_float32_matmul_precision(before)


def test_of_two_overlapping_borrowers_the_last_puts_the_rounding_back() -> None:
    found, inside = read_rounding(), []
    with ExitStack() as first:
        first.enter_context(round_as_float32())
        second = ExitStack()
        second.enter_context(round_as_float32())
        first.close()
        inside.append(BACKENDS.cudnn.conv.fp32_precision)
        second.close()
    assert inside == ["ieee"]
    assert read_rounding() == found
