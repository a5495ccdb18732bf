"""Clean runs: what the network says of images as they are, and the check that company changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, NonFiniteResult, UnsuitableNetwork, VizcnnWarning
from vizcnn.models.clean import _CHECKED

IMAGES = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8


class Counted(nn.Module):
    """Notes how many images each run has. Between normalisation and network something may happen to the images."""

    def __init__(self, happens: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.inner, self.extra, self.happens, self.seen = small_cnn(), nn.Identity(), happens, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        out: Tensor = self.inner(self.extra(self.happens(x)))
        return out


class Dropping(nn.Module):
    """Dropout that does not ask whether it is in eval mode; without a number or a weight of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x)


def runs(model: vizcnn.Model, images: Tensor = IMAGES, target: Any = None) -> list[int]:
    """How many images each run has in a call for scores alone."""

    class Scores(vizcnn.Probe[vizcnn.Heatmap]):
        """Scores."""

        def compute(self, subject: vizcnn.probing.Subject) -> vizcnn.Heatmap:
            raise ZeroDivisionError(subject.scores.shape)

    seen: list[int] = model.network.seen  # type: ignore[assignment]
    seen.clear()
    with pytest.raises(ZeroDivisionError):
        Scores()(model, images, target)
    return list(seen)


FIRST = [1, 2] * 2  # the first and the last image, alone and beside another


@pytest.mark.parametrize("target", [None, 1, ["inner.3:2", "p(b)"]])
def test_a_network_is_checked_once_and_images_run_in_batches(target: Any) -> None:
    model = vizcnn.Model(Counted(), size=16, labels=list("abcde"))
    assert runs(model, target=target) == [*FIRST, 30]
    assert runs(model, target=target) == [30]
    assert runs(model, IMAGES[:9], target) == [9]
    assert runs(model, IMAGES[:1], target) == [1, 2]  # alone is another case
    assert runs(model, IMAGES[:1], target) == [1]


def change_weight(network: Any) -> None:
    with torch.no_grad():
        network.inner[0].weight[0, 0, 0, 0] += 1e-3


def put_in_another_module(network: Any) -> None:
    network.extra = nn.Sequential()


def set_a_number(network: Any) -> None:
    network.inner[7].out_features_wanted = 3


def replace_forward(network: Any) -> None:
    network.extra.forward = lambda x: x


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        put_in_another_module,
        set_a_number,
        replace_forward,
        lambda network: network.extra.register_forward_hook(lambda *_: None),
        lambda network: network.extra.register_forward_pre_hook(lambda *_: None),
    ],
)
def test_a_network_that_was_changed_is_checked_again(change: Callable[[Any], Any]) -> None:
    model = vizcnn.Model(Counted(), size=16)
    assert runs(model) == [*FIRST, 30]
    change(model.network)
    assert runs(model) == [*FIRST, 30]
    assert runs(model) == [30]


def test_what_is_remembered_of_a_network_in_training_does_not_grow_without_end() -> None:
    model = vizcnn.Model(Counted(), size=16)
    for _ in range(100):
        change_weight(model.network)
        runs(model, IMAGES[:1])
    assert runs(model, IMAGES[:1]) == [1]
    assert len(_CHECKED[model.network]) <= 32


@pytest.mark.parametrize(
    "spoil",
    [
        lambda network: setattr(network, "extra", Dropping()),
        lambda network: setattr(network.extra, "forward", F.dropout),
        lambda network: network.extra.register_forward_hook(lambda _module, _inputs, output: F.dropout(output)),
    ],
)
def test_a_network_that_has_become_random_is_refused(spoil: Callable[[Any], Any]) -> None:
    model = vizcnn.Model(Counted(), size=16)
    runs(model)
    spoil(model.network)
    for _ in range(2):  # what is refused is not remembered as checked
        with pytest.raises(UnsuitableNetwork, match="it is random"):
            vizcnn.Saliency()(model, IMAGES)


def test_units_that_images_choose_are_named_and_scored_for_each() -> None:
    """The oracle: the largest value of each image's maps in a plain run."""
    model = vizcnn.Model(small_cnn(), size=16)
    with torch.no_grad():
        maps = model.network.eval()[:4](IMAGES)  # type: ignore[index]
    found = vizcnn.Saliency()(model, IMAGES, ["strongest(3)", "3:1"])
    for i, (strongest, channel) in enumerate(found.provenance.targets):
        y, x = divmod(int(maps[i].amax(0).argmax()), maps.shape[3])
        assert strongest == f"3:{int(maps[i, :, y, x].argmax())}@{y},{x}"
        assert channel == "3:1"
        np.testing.assert_allclose(found.scores[i], [float(maps[i].max()), float(maps[i, 1].mean())], rtol=1e-5)
    assert len(set(found.provenance.targets)) > 1
    asked = vizcnn.Saliency().identify_call(model, IMAGES, ["strongest(3)", "3:1"])
    assert asked.target_specs == found.provenance.target_specs


def test_a_hook_in_the_place_of_another_is_seen() -> None:
    """A new function may get the address of one that is gone."""
    model = vizcnn.Model(Counted(), size=16)
    for _ in range(3):
        handle = model.network.extra.register_forward_hook(lambda _module, _inputs, output: output)  # type: ignore[union-attr]
        assert runs(model) == [*FIRST, 30]
        handle.remove()


def test_a_persons_own_target_is_checked_in_each_call() -> None:
    model, random = vizcnn.Model(Counted(), size=16), [0.0]

    def score(output: Tensor) -> Tensor:
        return output[:, 1] + random[0] * torch.rand(len(output))

    assert runs(model, target=score) == [*FIRST, 30]
    assert runs(model, target=score) == [*FIRST, 30]
    random[0] = 1
    with pytest.raises(UnsuitableNetwork, match="score of the same image differs by"):
        vizcnn.Occlusion()(model, IMAGES, score)


def test_images_that_change_each_other_only_beside_brighter_ones_are_refused() -> None:
    """As in dynamic quantization, where one scale serves a batch. The dimmed copy of the check does not reveal it."""
    model = vizcnn.Model(Counted(lambda x: x / x.amax()), size=16)
    one = IMAGES[:1]
    assert vizcnn.Saliency()(model, one, 1).values.any()
    for images in (torch.cat([one / 2, one]), torch.cat([one, one / 2])):
        for target in (None, 1):
            with pytest.raises(UnsuitableNetwork, match="lets the images of a batch influence each other"):
                vizcnn.Saliency()(model, images, target)


def spoil_bright(x: Tensor) -> Tensor:
    return x / (x.mean((1, 2, 3), keepdim=True) < 0.6)


@pytest.mark.parametrize("bad", [[0], [14], [29], [0, 1, 14, 28, 29]])
@pytest.mark.parametrize("target", [None, 1])
def test_images_of_nan_are_left_out_wherever_they_stand(bad: list[int], target: Any) -> None:
    model = vizcnn.Model(Counted(spoil_bright), size=16, labels=list("abcde"))
    images = IMAGES.clone()
    images[bad] = 1 - images[bad] / 2
    with pytest.warns(VizcnnWarning, match=r"left out, see `result.refused`. tensor: .* (NaN|nan)"):
        found = vizcnn.Saliency()(model, images, target)
    assert len(found.refused) == len(bad)
    good = [i for i in range(30) if i not in bad]
    with torch.no_grad():
        said = small_cnn().eval()(images[good])
    expected = said[:, 1] if target else said.amax(1)
    np.testing.assert_allclose(found.scores[:, 0], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(NonFiniteResult):
        vizcnn.Saliency()(model, images, target, strict=True)
    with pytest.raises(NonFiniteResult):
        vizcnn.Saliency()(model, images[bad], target)


def test_a_map_of_numbers_does_not_save_an_output_of_nan() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            bright = x.mean((1, 2, 3)) > 0.6
            return torch.cat([out, torch.where(bright, torch.nan, 0)[:, None]], 1)

    images = torch.stack([IMAGES[0], 1 - IMAGES[1] / 2, IMAGES[2]])
    for method in ("gradient", "smoothgrad", "integrated-gradients"):
        with pytest.warns(VizcnnWarning, match="1 image was left out"):
            found = vizcnn.Saliency(method=method)(vizcnn.Model(Half(), size=16), images, 1)
        assert len(found.values) == len(found.findings) == 2
        assert "holds NaN or infinity" in found.refused[0][1]


def test_what_is_wrong_with_the_network_ends_the_call_at_once() -> None:
    """Not after each image has been tried alone."""
    no_relu = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    seen: list[int] = []
    no_relu.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    with pytest.raises(DegenerateResult, match="the network has no ReLU"):
        vizcnn.Saliency(method="guided-backprop")(vizcnn.Model(no_relu, size=16), IMAGES, 1)
    assert seen == [*FIRST, 30]


def test_ctrl_c_during_clean_runs_is_an_ordinary_interrupt() -> None:
    def interrupt(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt) as caught:
        vizcnn.Saliency()(vizcnn.Model(Counted(interrupt), size=16), IMAGES)
    assert not isinstance(caught.value, vizcnn.Interrupted)
