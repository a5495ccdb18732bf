"""Layers that are no maps (N, C, H, W): each probe answers for a channels-last layer as for the same map laid as usual,
and passes over or refuses what has no places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models import _torchvision
from vizcnn.probes.cam import Method
from vizcnn.scanning import scan

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (16, 24)


class Both(nn.Module):
    """A layer `last` (N, H, W, C), followed by `usual`, which holds the same as (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.last = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 6), nn.ReLU()
        self.usual, self.pool, self.head = nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.mix(self.stem(x).permute(0, 2, 3, 1)))  # (N, h, w, C)
        out: Tensor = self.head(self.pool(self.usual(y.permute(0, 3, 1, 2))).flatten(1))
        return out


@pytest.fixture
def model() -> vizcnn.Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return vizcnn.Model(Both().eval(), size=SIZE)


def images(count: int = 1) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def assert_alike(one: Any, other: Any) -> None:
    """The same numbers, whatever the layer is called."""
    a, b = (
        {name.replace("last", "usual"): value for name, value in each.arrays().items() if value.dtype.kind in "fiu"}
        for each in (one, other)
    )
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", get_args(Method))
def test_cam(model: vizcnn.Model, method: Method) -> None:
    found = (vizcnn.Cam(method=method, layer=layer)(model, images(), 2, progress=False) for layer in ("last", "usual"))
    assert_alike(*found)


QUIET: Any = {"progress": False}
PROBES: dict[str, Callable[[vizcnn.Model, str], Any]] = {
    "target": lambda m, layer: vizcnn.Saliency()(m, images(), f"{layer}:4", **QUIET),
    "neuron": lambda m, layer: vizcnn.Saliency()(m, images(), f"{layer}:3@2,9", **QUIET),
    "direction": lambda m, layer: vizcnn.Saliency()(m, images(), vizcnn.direction(layer, range(6)), **QUIET),
    "occlusion": lambda m, layer: vizcnn.Occlusion(window=8, engine="plain")(m, images(), f"{layer}:4", **QUIET),
    "deconvnet": lambda m, layer: vizcnn.Deconvnet()(m, images(), f"{layer}:4", **QUIET),
    "feature maps": lambda m, layer: vizcnn.FeatureMaps(layers=(layer,))(m, images(), **QUIET),
    "top images": lambda m, layer: vizcnn.TopImages(count=3)(m, images(5), f"{layer}:0-5", **QUIET),
    "embed": lambda m, layer: vizcnn.Embed(layer=layer, features=True)(m, images(5), **QUIET),
    "dream": lambda m, layer: vizcnn.Dream(octaves=1, steps=2, jitter=0)(m, images()[0], f"energy({layer})", **QUIET),
    "style": lambda m, layer: vizcnn.Style(
        like="sample:noise", content_layer=layer, style_layers=(layer,), steps=2, size=24
    )(m, images()[0].permute(1, 2, 0).numpy(), **QUIET),
}


@pytest.mark.parametrize("name", PROBES)
def test_probes(model: vizcnn.Model, name: str) -> None:
    assert_alike(*(PROBES[name](model, layer) for layer in ("last", "usual")))


def test_maximize(model: vizcnn.Model) -> None:
    found = vizcnn.Maximize(preset="lecture", steps=3)(model, target="last:0-5", **QUIET)
    pictures = torch.from_numpy(found.panels[0].values).permute(0, 3, 1, 2)  # (6, C, H, W)
    with torch.no_grad():
        reached = model.network.last(model.network.mix(model.network.stem(pictures).permute(0, 2, 3, 1)))  # type: ignore[operator]
    np.testing.assert_allclose(found.reached, reached.mean((1, 2)).diagonal(), rtol=1e-4)


def test_the_incremental_engine() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 6, 3, 2, 1), nn.LayerNorm(6)
            self.norm.weight.data = torch.arange(1.0, 7.0)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2))
            return out

    model, wanted = vizcnn.Model(Normed().eval(), size=SIZE), ["norm:4", "norm:1@3,9", "energy(norm)"]
    plain, parts = (
        vizcnn.Occlusion(window=4, stride=4, engine=engine)(model, images(), wanted, **QUIET)
        for engine in ("plain", "incremental")
    )
    np.testing.assert_allclose(parts.values, plain.values, rtol=1e-3, atol=1e-5)
    outside = np.ones(SIZE, bool)
    outside[4:8, 16:20] = False  # the unit at 3,9 sees rows 5 to 7 and columns 17 to 19
    np.testing.assert_allclose(plain.values[0, 1][outside], 0, atol=1e-6)
    assert np.abs(plain.values[0, 1]).max() > 1e-3


def test_boxes_are_those_of_the_same_map(model: vizcnn.Model) -> None:
    scenes = (
        vizcnn.FeatureMaps(layers=(layer,))(model, images(), **QUIET).rows[0].scene for layer in ("last", "usual")
    )
    last, usual = (scene.marks[0] for scene in scenes if scene)
    assert last
    assert usual
    assert last.box == usual.box
    rows = (vizcnn.TopImages(count=2)(model, images(4), f"{layer}:1", **QUIET).rows[0] for layer in ("last", "usual"))
    first, second = ([one.box for one in row.exemplars] for row in rows)
    assert first == second


def test_a_scan_looks_at_channels_last_layers_by_default(model: vizcnn.Model, tmp_path: Any) -> None:
    index = scan(model, images(6), tmp_path / "index", loaders=0, progress=False)
    with torch.no_grad():
        mixed = model.network.mix(model.network.stem(images(6)).permute(0, 2, 3, 1))  # type: ignore[operator]
    np.testing.assert_allclose(index.tally("mix").highest, mixed.amax((0, 1, 2)), rtol=1e-5)
    assert index.field("mix").units == (8, 12)  # type: ignore[union-attr]


class Dense(nn.Module):
    """A dense layer for every place, channels last, is what comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2))
        return out


def test_what_enters_a_dense_layer_is_averaged_over_its_places() -> None:
    model = vizcnn.Model(Dense().eval(), size=8)
    found = vizcnn.Embed(features=True)(model, torch.rand(4, 3, 8, 8), **QUIET)
    assert found.features is not None
    assert found.features.shape == (4, 5)


@pytest.fixture
def transformer() -> vizcnn.Model:
    network = _torchvision.import_models().VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    return vizcnn.Model(network.eval(), size=32, name="vit")


def test_a_transformer_s_tokens_are_passed_over_by_default(transformer: vizcnn.Model) -> None:
    image = torch.rand(1, 3, 32, 32)
    assert (
        dict(vizcnn.Cam(method="eigen-cam")(transformer, image, 1, **QUIET).provenance.details)["layer"] == "conv_proj"
    )
    assert vizcnn.FeatureMaps()(transformer, image, **QUIET).panels[0].key == "image0.conv_proj"
    assert transformer.layers().keys() >= {"conv_proj", "encoder.ln"}
    assert vizcnn.Dream().default_targets(transformer) == ["energy(conv_proj)"]
    assert vizcnn.TopImages().default_targets(transformer)[0] == "conv_proj:0"


def test_tokens_are_refused_by_name_where_maps_are_needed(transformer: vizcnn.Model) -> None:
    image, layer = torch.rand(1, 3, 32, 32), "encoder.layers.encoder_layer_1"
    tokens = r"\(1, 16, 17\), channels and tokens without rows and columns"
    for method in ("grad-cam", "score-cam"):
        with pytest.raises(ParameterError, match=f"layer '{layer}' has no space: its output is {tokens}"):
            vizcnn.Cam(method=method, layer=layer)(transformer, image, 1, **QUIET)
    with pytest.raises(TargetError, match=f"layer '{layer}' gives {tokens}, not maps"):
        vizcnn.FeatureMaps(layers=(layer,))(transformer, image, **QUIET)
    with pytest.raises(TargetError, match=f"layer '{layer}' gives {tokens} for an image"):
        vizcnn.TopImages()(transformer, image, f"{layer}:1", **QUIET)
    with pytest.raises(TargetError, match=r"is \(1, 16, 17\) and has no positions"):
        vizcnn.Saliency()(transformer, image, f"{layer}:1@0,0", **QUIET)


def test_a_channel_of_tokens_is_their_mean(transformer: vizcnn.Model) -> None:
    image, layer, kept = torch.rand(1, 3, 32, 32), "encoder.layers.encoder_layer_1", list[Tensor]()
    found = vizcnn.Saliency()(transformer, image, f"{layer}:7", **QUIET)
    hook = transformer.layer(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        transformer(image)
    hook.remove()
    assert found.scores[0, 0] == pytest.approx(float(kept[0][0, :, 7].mean()), rel=1e-4)
