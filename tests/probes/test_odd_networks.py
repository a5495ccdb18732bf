"""Networks as people really write them: what fails inside them is one clear error, what can be answered is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vizcnn
from vizcnn.errors import DegenerateResult, NetworkError, ParameterError
from vizcnn.testing import state_of

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PROBES: dict[str, Callable[[vizcnn.Model], vizcnn.Result]] = {
    "saliency": lambda model: vizcnn.Saliency()(model, IMAGE, 1, progress=False),
    "smoothgrad": lambda model: vizcnn.Saliency(method="smoothgrad", samples=3)(model, IMAGE, 1, progress=False),
    "guided": lambda model: vizcnn.Saliency(method="guided-backprop")(model, IMAGE, 1, progress=False),
    "cam": lambda model: vizcnn.Cam(layer=_layer(model, "3"))(model, IMAGE, 1, progress=False),
    "deconvnet": lambda model: vizcnn.Deconvnet()(model, IMAGE, f"{_layer(model, '3')}:1", progress=False),
    "occlusion": lambda model: vizcnn.Occlusion(engine="plain", window=8)(model, IMAGE, 1, progress=False),
    "maximize": lambda model: vizcnn.Maximize(steps=2)(model, target=f"{_layer(model, '3')}:1", progress=False),
}


def _layer(model: vizcnn.Model, name: str) -> str:
    return next(each for each in model.layers() if each == name or each.endswith(f".{name}"))


class Checkpointing(nn.Module):
    """The small network, with two parts of it under an activation checkpoint of a kind, or under none."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.inner, self.reentrant = small_cnn(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.inner[:3], self.inner[3:5]):
            x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
        out: Tensor = self.inner[5:](x)
        return out


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", PROBES)
def test_checkpoints_change_no_answer(name: str, reentrant: bool) -> None:
    expected = PROBES[name](vizcnn.Model(Checkpointing(None), size=16)).arrays()
    model = vizcnn.Model(Checkpointing(reentrant), size=16)
    before = state_of(model)
    found = PROBES[name](model).arrays()
    assert state_of(model) == before
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpoints_are_the_persons_again_afterwards() -> None:
    """A probe in one thread does not take the checkpoints of training in another, and leaves torch as it was."""
    theirs = vars(torch.utils.checkpoint).copy()
    model = vizcnn.Model(Checkpointing(True), size=16)
    PROBES["saliency"](model)
    assert vars(torch.utils.checkpoint) == theirs
    image = IMAGE.clone().requires_grad_()
    with pytest.raises(RuntimeError, match=r"incompatible with .grad\(\)|not compatible with .grad\(\)"):
        torch.autograd.grad(model.network(image)[0, 1], image)


@pytest.mark.parametrize("name", PROBES)
def test_networks_made_in_inference_mode_answer_like_any(name: str) -> None:
    expected = PROBES[name](vizcnn.Model(small_cnn(), size=16)).arrays()
    with torch.inference_mode():
        network = small_cnn()
        network.append(nn.BatchNorm1d(5).train())
    model = vizcnn.Model(network, size=16)
    before = state_of(model)
    found = PROBES[name](model).arrays()
    assert state_of(model) == before
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-3, atol=1e-5)


class Two(nn.Module):
    def forward(self, x: Tensor, age: Tensor) -> Tensor:
        return x.mean((2, 3)) + age


class Hooking(nn.Module):
    """Registers a hook on a tensor, as tutorials of Grad-CAM do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner[:6](x)
        x.register_hook(print)
        out: Tensor = self.inner[6:](x)
        return out


class Single(nn.Module):
    """Takes one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.reshape(1, -1))
        return out


@pytest.mark.parametrize("name", ["saliency", "cam", "occlusion"])
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Two(),
            r"fails on images \(1, 3, 16, 16\) .*missing 1 required positional argument: 'age'. It needs more than",
        ),
        (small_cnn(1), r"expected input\[1, 3, 16, 16\] to have 1 channels.* Is the Model's size 16 x 16, with 3 chan"),
        (Hooking(), r"cannot register a hook .* Put `if x.requires_grad:` before the hook"),
        (Single(), r"answers for one image, but not for two: .* Where it says view\(1, -1\), write flatten\(1\)"),
    ],
)
def test_what_the_network_itself_raises_is_one_line_with_a_remedy(name: str, network: Any, message: str) -> None:
    probe = {"saliency": vizcnn.Saliency(), "cam": vizcnn.Cam(), "occlusion": vizcnn.Occlusion()}[name]
    model = vizcnn.Model(network, size=16)
    before = state_of(model)
    with pytest.raises(NetworkError, match=message) as caught:
        probe(model, IMAGE, 1, progress=False)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError | RuntimeError)
    assert state_of(model) == before


def test_running_out_of_memory_stays_what_it_is() -> None:
    """Whoever halves a batch must see it."""

    class Full(nn.Module):
        def forward(self, _images: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("on purpose")

    with pytest.raises(torch.OutOfMemoryError):
        vizcnn.Model(Full(), size=4)(torch.rand(1, 3, 4, 4))


def test_a_persons_own_checkpoints_stay_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(torch.utils.checkpoint.CheckpointFunction):  # as some libraries of training have one
        pass

    PROBES["saliency"](vizcnn.Model(Checkpointing(True), size=16))  # before it is there
    monkeypatch.setattr(torch.utils.checkpoint, "CheckpointFunction", Own)
    PROBES["saliency"](vizcnn.Model(Checkpointing(True), size=16))
    assert torch.utils.checkpoint.CheckpointFunction is Own


@pytest.mark.parametrize(
    "end",
    [lambda x: x.double().softmax(1), lambda x: x > 0, lambda x: x.sum(), lambda x: x * 1j],
    ids=["double", "bool", "one number", "complex"],
)
def test_outputs_of_other_types_are_no_sign_of_randomness(end: Callable[[Tensor], Tensor]) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            return end(self.inner(x))

    found = vizcnn.Saliency()(vizcnn.Model(Odd(), size=16), IMAGE, "inner.3:1", progress=False)
    plain = vizcnn.Saliency()(vizcnn.Model(small_cnn(), size=16), IMAGE, "3:1", progress=False)
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-4, atol=1e-7)


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ParameterError, match=r"'0.weight' has no values .* load_state_dict\(..., assign=True\)"):
        vizcnn.Model(network, size=16)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (nn.functional.dropout, "it is random"),
        (lambda x: x - x.mean(0), "lets the images of a batch influence"),
    ],
)
def test_probes_without_images_see_randomness_and_mixed_batches(end: Callable[[Tensor], Tensor], message: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.last = small_cnn(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.inner[7](end(self.inner[:7](x))))
            return out

    model = vizcnn.Model(Odd(), size=16)
    for target in (1, "last:1"):
        with pytest.raises(DegenerateResult, match=message):
            vizcnn.Maximize(steps=2)(model, target=target, progress=False)
    found = vizcnn.Maximize(steps=2)(model, target="inner.3:1", progress=False)  # before any of that happens
    assert found.reached.shape == (1,)
