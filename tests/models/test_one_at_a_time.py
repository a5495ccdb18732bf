"""A network that takes one image only gets the results of the same network that takes several."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import picture
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import VizcnnWarning

SIZE = (12, 12)


class Net(nn.Module):
    """A small network; with `single`, one whose forward says view(1, -1)."""

    def __init__(self, single: bool, form: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Linear(4 * 36, 3)
        self.single, self.form = single, form

    def forward(self, x: Tensor) -> Any:
        maps = self.act(self.conv(x))
        out = self.fc(maps.view(1, -1) if self.single else maps.flatten(1))
        return self.form(out) if self.form else out


def model(single: bool, form: Any = None) -> vizcnn.Model:
    return vizcnn.Model(Net(single, form), size=SIZE, labels=["a", "b", "c"])


PROBES: list[Any] = [
    vizcnn.Occlusion(window=4, stride=3),
    vizcnn.Rise(masks=20),
    vizcnn.Saliency(sign="signed"),
    vizcnn.Saliency(method="smoothgrad", samples=4),
    vizcnn.Cam(layer="act"),
    vizcnn.Cam(layer="act", method="score-cam"),
    vizcnn.FeatureMaps(),
    vizcnn.Deconvnet(),
]


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: f"{probe.name()} {getattr(probe, 'method', '')}")
def test_probes_of_images_give_what_they_give_for_several(probe: Any) -> None:
    images = picture(SIZE, count=3)
    right, found = (probe(model(single), images, seed=3, progress=False).arrays() for single in (False, True))
    assert right.keys() == found.keys()
    for name, values in right.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
def test_several_pictures_are_optimised_at_once() -> None:
    probe = vizcnn.Maximize(steps=3)
    right, found = (probe(model(single), target=["a", "c"], progress=False) for single in (False, True))
    np.testing.assert_allclose(found.reached, right.reached, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
def test_a_scan_finds_the_same(tmp_path: Path) -> None:
    for i in range(5):
        values = (np.random.default_rng(i).random((12, 12, 3)) * 255).astype(np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "photos" / f"{i}.png")
    right, found = (
        vizcnn.scan(model(single), tmp_path / "photos", tmp_path / str(single), progress=False, loaders=0, batch=4)
        for single in (False, True)
    )
    for layer in ("conv", "fc", "output"):
        torch.testing.assert_close(found.tally(layer).values, right.tally(layer).values, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.tally(layer).images, right.tally(layer).images)


def test_it_is_said_once() -> None:
    own = model(True)
    with pytest.warns(VizcnnWarning, match="Net answers for one image, but not for several at once"):
        vizcnn.Saliency()(own, picture(SIZE), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vizcnn.Occlusion(window=4)(own, picture(SIZE, count=2), progress=False)


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
@pytest.mark.parametrize(
    ("form", "target"),
    [
        (lambda y: {"out": y, "twice": 2 * y}, lambda raw: raw["twice"][:, 1]),
        (lambda y: (y, [y]), lambda raw: raw[1][0][:, 1]),
        (lambda y: [{"scores": y[0]}], lambda raw: torch.stack([one["scores"][1] for one in raw])),
        (lambda y: y[0], lambda raw: raw.view(-1, 3)[:, 1]),
    ],
)
def test_a_function_of_what_is_returned_gets_all_images_together(form: Any, target: Any) -> None:
    images = picture(SIZE, count=2)
    right = vizcnn.Saliency(sign="signed")(model(False), images, 1, progress=False)
    found = vizcnn.Saliency(sign="signed")(model(True, form), images, target, progress=False)
    factor = 2 if isinstance(form(torch.ones(1, 3)), dict) else 1
    np.testing.assert_allclose(found.values, factor * right.values, rtol=1e-4, atol=1e-6)


class First(Net):
    """One that looks at the first image only, and does not fail on several."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x[:1])
        return out if self.single else out[0]


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
@pytest.mark.parametrize("squeezes", [False, True])
@pytest.mark.parametrize("probe", [*PROBES, vizcnn.Invert(steps=2)], ids=lambda probe: probe.name())
def test_a_network_that_looks_at_the_first_image_only(probe: Any, squeezes: bool) -> None:
    images = picture(SIZE, count=4)
    first = vizcnn.Model(First(not squeezes), size=SIZE)
    right, found = (probe(own, images, seed=3, progress=False).arrays() for own in (model(False), first))
    for name, values in right.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
def test_a_function_of_one_image_is_asked_for_each() -> None:
    network = Net(False).eval()

    def ask(images: Any) -> float:
        with torch.no_grad():
            return float(network(torch.from_numpy(images[:1]))[0, 1])

    right = vizcnn.Occlusion(window=4)(model(False), picture(SIZE), 1, progress=False)
    found = vizcnn.Occlusion(window=4)(vizcnn.Model(ask, size=SIZE), picture(SIZE), progress=False)
    np.testing.assert_allclose(found.values, right.values, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning")
@pytest.mark.parametrize("network", [Net(True), First(False)], ids=["fails on several", "takes the first"])
def test_the_check_says_of_it_what_it_says_of_the_same_network_for_several(network: Net) -> None:
    right, found = (vizcnn.check(each).rows for each in (model(False), vizcnn.Model(network, size=SIZE)))
    (alone,) = (row for row in found if row[0] == "arithmetic")  # it follows the network, which takes several images
    assert "cannot be followed" in " ".join(map(str, alone))
    assert [row[:2] for row in found if row is not alone] == [row[:2] for row in right if row[0] != "arithmetic"]
