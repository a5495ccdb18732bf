"""Axes: where layers have their images, channels, rows and columns. The right numbers come from plain runs by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn
from vizcnn import testing
from vizcnn.errors import TargetError
from vizcnn.models import _torchvision
from vizcnn.models.layers.axes import Axes, find_layers, find_spatial_layers, remember_layers
from vizcnn.models.layers.capture import open_reader, read_activations, tap_layer
from vizcnn.models.targets import direction, target

MAP = Axes((0, 1, 2, 3), 2)
LAST = Axes((0, 3, 1, 2), 2)
TOKENS = Axes((0, 2, 1), 1)
SIZE = (12, 20)


class Chain(nn.Module):
    """A convolution, then whatever `change` makes of its map (N, 6, 6, 10), seen at the layer `seen`."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.seen, self.change = nn.Conv2d(3, 6, 3, 2, 1), nn.Identity(), change

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seen(self.change(self.conv(x)))
        return y.flatten(1) if y.dim() > 1 else y


def attention(y: Tensor) -> Tensor:
    q = y.flatten(2).unflatten(1, (2, 3)).mT  # (N, heads, T, 3)
    weights: Tensor = (q @ q.mT).softmax(-1)
    return weights


def windows(y: Tensor) -> Tensor:
    """Windows of 3 x 5: (N, 4, 15, C)."""
    parts: Any = y.unflatten(2, (2, 3)).unflatten(4, (2, 5))
    cut: Tensor = parts.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2, 3)
    return cut


def unwindowed(y: Tensor) -> Tensor:
    """From windows back to (N, h, w, C)."""
    parts: Any = windows(y).unflatten(1, (2, 2)).unflatten(3, (3, 5))
    whole: Tensor = parts.transpose(2, 3).flatten(1, 2).flatten(2, 3)
    return whole


def with_class_token(y: Tensor) -> Tensor:
    tokens = y.flatten(2).mT  # (N, T, C)
    return torch.cat([tokens.new_zeros(len(y), 1, 6), tokens], 1)


def excited(y: Tensor) -> Tensor:
    """Squeeze and excitation, channels last: every element depends on all places."""
    last = y.permute(0, 2, 3, 1)
    return last * last.mean((1, 2), keepdim=True).sigmoid()


def weighed(y: Tensor) -> Tensor:
    """Each channel by its neighbours' means: a convolution along channels, of whatever kind, lays out no map."""
    means = y.mean((2, 3))[:, None]  # (N, 1, C)
    once = F.conv1d(means, means.new_ones(1, 1, 3), padding=1)  # (N, 1, C)
    twice = F.conv2d(once[:, None], means.new_ones(1, 1, 1, 3), padding=(0, 1))  # (N, 1, 1, C)
    return y * (once + twice[:, 0]).mT[..., None]


def one_by_one(y: Tensor) -> Tensor:
    return torch.cat([each[None].permute(0, 2, 3, 1) for each in y])


def filled(y: Tensor) -> Tensor:
    made = torch.zeros(len(y), 6, 10, 6, dtype=y.dtype, device=y.device)
    made[..., :3] = y[:, :3].permute(0, 2, 3, 1)
    made[..., 3:] = y[:, 3:].permute(0, 2, 3, 1)
    return made


def normalised(y: Tensor) -> Tensor:
    made = y.mean((2, 3)).repeat(1, 60).view(-1, 6, 6, 10)
    return F.batch_norm(made, made.new_zeros(6), made.new_ones(6))


def gated(y: Tensor) -> Tensor:
    return (y.mean((2, 3)) @ y.new_ones(6, 60)).view(-1, 1, 6, 10).sigmoid()  # (N, 1, 6, 10)


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Axes]] = {
    "a map": (lambda y: y, MAP),
    "channels last": (lambda y: y.permute(0, 2, 3, 1), LAST),
    "permuted and back": (lambda y: y.permute(0, 2, 3, 1).permute(0, 3, 1, 2), MAP),
    "rows and columns swapped": (lambda y: y.transpose(2, 3), Axes((0, 1, 3, 2), 2)),
    "images second": (lambda y: y.transpose(0, 1), Axes((1, 0, 2, 3), 2)),
    "columns before rows, channels last": (lambda y: y.permute(0, 3, 2, 1), Axes((0, 3, 2, 1), 2)),
    "excited": (excited, LAST),
    "windows": (windows, Axes((0, 1, 2, 3), None)),
    "a row of windows": (
        lambda y: y.unflatten(3, (2, 5)).permute(0, 3, 2, 4, 1).flatten(2, 3),
        Axes((0, 1, 2, 3), None),
    ),
    "windows undone": (unwindowed, LAST),
    "rotated": (lambda y: y[..., :6].rot90(1, (2, 3)), Axes((0, 1, 3, 2), 2)),
    "gated": (lambda y: F.glu(y, 1), MAP),
    "rolled": (lambda y: y.permute(0, 2, 3, 1).roll((1, 2), (1, 2)), LAST),
    "both ways up": (lambda y: y + y.flip(2, 3), MAP),
    "attention": (attention, Axes((0, 1, 2, 3), None)),
    "one head": (lambda y: attention(y).mean(1, keepdim=True), Axes((0, 1, 2, 3), None)),
    "tokens": (lambda y: y.flatten(2).mT, TOKENS),
    "tokens, channels first": (lambda y: y.flatten(2), Axes((0, 1, 2), 1)),
    "tokens, images second": (lambda y: y.flatten(2).permute(2, 0, 1), Axes((1, 2, 0), 1)),
    "class token": (with_class_token, TOKENS),
    "without it again": (lambda y: with_class_token(y)[:, 1:].unflatten(1, (6, 10)), LAST),
    "rows only": (lambda y: y.mean(3), Axes((0, 1, 2), 1)),
    "mixed attention": (lambda y: (attention(y) @ y.flatten(2).mT[:, None]).mean(1), TOKENS),
    "patches": (lambda y: y.unflatten(2, (2, 3)).unflatten(4, (2, 5)).permute(0, 2, 4, 1, 3, 5).flatten(3), LAST),
    "places in channels": (lambda y: F.pixel_unshuffle(y, 2), MAP),
    "shuffled channels": (lambda y: y.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2), MAP),
    "padded": (lambda y: F.pad(y.permute(0, 2, 3, 1), (0, 0, 1, 2, 3, 0)), LAST),
    "joined": (lambda y: torch.cat([y, F.interpolate(F.max_pool2d(y, 2), scale_factor=2)], 1), MAP),
    "joined with their mean": (lambda y: torch.cat([y, y.mean((2, 3), keepdim=True).expand_as(y)], 1), MAP),
    "filled in parts": (filled, LAST),
    "image by image": (one_by_one, LAST),
    "weighed by neighbours": (weighed, MAP),
    "rows gathered": (lambda y: y.gather(2, y.argsort(2)) + y, MAP),
    "images and channels in one": (lambda y: y.flatten(0, 1)[:, None].expand(-1, 2, -1, -1), Axes((0, 1, 2, 3), None)),
    "groups": (lambda y: y.unflatten(1, (2, 3)), Axes((0, 1, 2, 3, 4), None)),
    "one place": (lambda y: y.mean((2, 3), keepdim=True), MAP),
    "one place, channels last": (lambda y: y.mean((2, 3))[:, None, None], LAST),
    "one row": (lambda y: y.mean(2, keepdim=True), MAP),
    "one row, channels last": (lambda y: y.mean(2, keepdim=True).permute(0, 2, 3, 1), LAST),
    "one row made a map": (lambda y: F.pad(y[:, :, :1], (0, 0, 1, 1)), MAP),
    "one column pooled into two": (lambda y: F.adaptive_avg_pool2d(y[..., :1], (1, 2)), MAP),
    "a vector made a map of one channel": (gated, Axes((0, 1, 2, 3), None)),
    "beside its mirror image": (lambda y: torch.cat([y, y.flip(-1)], 1), MAP),
    "mirror images between": (lambda y: torch.stack([y, y.flip(-1)], 2).flatten(1, 2), MAP),
    "beside its half turn": (lambda y: torch.cat([y, y.rot90(2, (2, 3))], 1), Axes((0, 1, 2, 3), None)),
    "two views as a batch": (lambda y: torch.cat([y, y.flip(-1)]), Axes((0, 1, 2, 3), None)),
    "channels chosen": (lambda y: y.index_select(1, torch.tensor([4, 0, 2], device=y.device)), MAP),
    "through frequencies": (lambda y: torch.fft.ifft2(torch.fft.fft2(y)).real, MAP),
    "complex and back": (lambda y: torch.view_as_real(torch.complex(y, y))[..., 1], MAP),
    "a map of a vector, normalised": (normalised, MAP),
    "a vector": (lambda y: y.flatten(1), Axes((0, 1), 0)),
    "numbers of an image": (lambda y: y.mean((1, 2, 3)), Axes((0,), 0)),
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_form_of_a_layer(kind: str) -> None:
    change, axes = FORMS[kind]
    model = vizcnn.Model(Chain(change), size=SIZE)
    assert find_layers(model, model.grey())["seen"].axes == axes
    images = torch.rand(3, 3, *SIZE)
    found = read_activations(model, images, ["seen"])["seen"]
    plain = change(model.network.conv(images))  # type: ignore[operator]
    if axes.places is None:
        torch.testing.assert_close(found.flatten(1), plain.flatten(1))
    else:
        torch.testing.assert_close(found, plain.permute(axes.order))


class Looking(nn.Module):
    """Looks at numbers, so no dry run is possible."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.chain = Chain(change)

    def forward(self, x: Tensor) -> Any:
        return self.chain(x if float(x.mean()) < 1e9 else -x)


@pytest.mark.parametrize("kind", ["a map", "channels last", "attention", "tokens", "windows undone", "excited"])
def test_networks_that_look_at_numbers_are_followed_on_the_image(kind: str) -> None:
    change, axes = FORMS[kind]
    model = vizcnn.Model(Looking(change), size=SIZE)
    assert find_layers(model, model.grey())["chain.seen"].axes == axes


def test_images_second_cannot_be_told_where_a_network_looks_at_numbers() -> None:
    model = vizcnn.Model(Looking(lambda y: y.flatten(2).permute(2, 0, 1)), size=SIZE)
    with pytest.raises(TargetError, match=r"\(60, 2, 6\), in which no axes are known to be channels, rows and columns"):
        target("chain.seen:0")(read_activations(model, torch.rand(2, 3, *SIZE), ["chain.seen"]))


def test_a_map_made_of_a_vector_has_the_places_that_convolutions_give_it() -> None:
    decoder = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 8),
        nn.Unflatten(1, (2, 2, 2)),
        nn.ConvTranspose2d(2, 5, 4, 2),
    )
    model = vizcnn.Model(decoder, size=8)
    assert find_layers(model, model.grey())["4"].axes == MAP
    assert find_spatial_layers(model, model.grey()) == {"4": (6, 6)}


class Leaving(nn.Module):
    """Leaves early where the image is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.late = nn.Conv2d(3, 4, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return self.late(y.permute(0, 2, 3, 1)).mean((1, 2)) if x.mean() > 0.6 else y.mean((2, 3))


def test_a_layer_that_only_some_images_reach() -> None:
    model, bright = vizcnn.Model(Leaving(), size=8), torch.full((1, 3, 8, 8), 0.9)
    with remember_layers(model):
        assert "late" not in find_layers(model, model.grey())
        assert read_activations(model, bright, ["late"])["late"].shape == (1, 4, 6, 6)
    found = vizcnn.Saliency()(model, bright, "late:1")
    assert found.scores[0, 0] == pytest.approx(float(model(bright)[0, 1].detach()))


def test_networks_that_cannot_be_copied_or_that_take_one_image_at_a_time() -> None:
    locked = Chain(lambda y: y.permute(0, 2, 3, 1))
    locked.lock = threading.Lock()  # type: ignore[assignment]
    single = Chain(lambda y: y.view(6, 6, 10).permute(1, 2, 0)[None])
    for network in (locked, single):
        model = vizcnn.Model(network, size=SIZE)
        assert find_layers(model, model.grey())["seen"].axes == LAST
        assert read_activations(model, torch.rand(1, 3, *SIZE), ["seen"])["seen"].shape == (1, 6, 6, 10)


def test_a_network_that_fails_half_way_is_known_as_far_as_it_runs() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    model = vizcnn.Model(network, size=8)
    with open_reader(model, ["0"]) as read:
        assert read(torch.rand(1, 3, 16, 16))["0"].shape == (1, 4, 14, 14)


def test_what_is_found_out_is_kept_while_the_network_stays_as_it_is() -> None:
    runs = 0

    def change(y: Tensor) -> Tensor:
        nonlocal runs
        runs += y.is_meta
        return y

    model = vizcnn.Model(Chain(change), size=SIZE)
    with remember_layers(model):
        read_activations(model, torch.rand(1, 3, *SIZE), ["seen"])
        with remember_layers(model):
            read_activations(model, torch.rand(1, 3, *SIZE), ["seen"])
        read_activations(model, torch.rand(1, 3, *SIZE), ["seen"])
    assert runs == 1
    model.network.change = lambda y: y.permute(0, 2, 3, 1)  # type: ignore[assignment]
    assert find_layers(model, model.grey())["seen"].axes == LAST


def test_the_network_is_left_as_it_was() -> None:
    model = testing.delicate_model()
    before = testing.state_of(model)
    assert find_layers(model, model.grey())
    assert testing.state_of(model) == before


def test_a_tap_hands_the_network_its_own_layout() -> None:
    network = Chain(lambda y: y.permute(0, 2, 3, 1).contiguous())
    model, images = vizcnn.Model(network, size=SIZE), torch.rand(2, 3, *SIZE)
    with tap_layer(model, "seen", images) as seen:
        output = model(images)
    assert seen["seen"].shape == (2, 6, 6, 10)
    (gradient,) = torch.autograd.grad((output * torch.arange(360.0)).sum(), seen["seen"])
    torch.testing.assert_close(
        gradient, torch.arange(360.0).view(1, 6, 10, 6).permute(0, 3, 1, 2).expand(2, -1, -1, -1)
    )


@pytest.mark.parametrize("kind", ["channels last", "tokens", "tokens, images second", "images second", "class token"])
def test_targets_mean_channels_wherever_these_lie(kind: str) -> None:
    change, axes = FORMS[kind]
    model, images = vizcnn.Model(Chain(change), size=SIZE), torch.rand(3, 3, *SIZE)
    plain = change(model.network.conv(images)).permute(axes.order)  # type: ignore[operator]
    found = read_activations(model, images, ["seen"])
    torch.testing.assert_close(target("seen:4")(found), plain[:, 4].flatten(1).mean(1))
    torch.testing.assert_close(target("energy(seen)")(found), plain.square().flatten(1).mean(1))
    along = direction("seen", range(6))(found)
    torch.testing.assert_close(along, plain.flatten(2).mean(2) @ torch.arange(6.0))
    with pytest.raises(TargetError, match="has channels 0 to 5, got 6"):
        target("seen:6")(found)


def test_neurons_have_the_place_that_they_have_in_the_image() -> None:
    images = torch.rand(1, 3, *SIZE)
    for kind in ("a map", "channels last", "rows and columns swapped"):
        model = vizcnn.Model(Chain(FORMS[kind][0]), size=SIZE)
        found = target("seen:2@5,9")(read_activations(model, images, ["seen"]))
        torch.testing.assert_close(found, model.network.conv(images)[:, 2, 5, 9])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("attention", "seen:0", r"\(2, 2, 60, 60\), in which no axes are known to be channels, rows and columns"),
        ("windows", "seen:0@0,0", r"\(2, 4, 15, 6\), in which .*Choose another layer, or energy\(seen\)"),
        ("tokens", "seen:0@0,0", r"layer 'seen' is \(2, 6, 60\) and has no positions, got @0,0"),
    ],
)
def test_what_has_no_channels_or_no_places_is_refused_by_name(kind: str, spec: str, message: str) -> None:
    model = vizcnn.Model(Chain(FORMS[kind][0]), size=SIZE)
    found = read_activations(model, torch.rand(2, 3, *SIZE), ["seen"])
    with pytest.raises(TargetError, match=message):
        target(spec)(found)
    with pytest.raises(TargetError, match="layer 'seen' is .*, a direction of 2 numbers does not fit"):
        direction("seen", [1, 2])(found)
    assert target("energy(seen)")(found).shape == (2,)


def transformers() -> dict[str, Callable[[], nn.Module]]:
    """Small ones of torchvision's, for images of 32 px."""
    models = _torchvision.import_models()
    block = models.convnext.CNBlockConfig
    return {
        "swin": lambda: models.SwinTransformer([4, 4], 8, [1, 2], [2, 2], [2, 2], num_classes=3),
        "convnext": lambda: models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=3),
        "maxvit": lambda: models.MaxVit((32, 32), 8, 2, [8, 16], [1, 1], 4, 0.0, num_classes=3),
        "vit": lambda: models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=3),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "expected", "last"),
    [
        ("swin", {"features.1.0": LAST, "features.3.1.mlp.0": LAST, "norm": LAST, "permute": MAP}, "permute"),
        ("convnext", {"features.1.0": MAP, "features.1.0.block.3": LAST, "features": MAP}, "features"),
        ("maxvit", {"blocks.0": MAP, "blocks.1.layers.0": MAP}, "blocks.1"),
        ("vit", {"conv_proj": MAP, "encoder.layers.encoder_layer_0": TOKENS}, "conv_proj"),
    ],
)
def test_networks_of_torchvision(name: str, expected: dict[str, Axes], last: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = vizcnn.Model(transformers()[name]().eval(), size=32)
    layers = find_layers(model, model.grey())
    assert {layer: layers[layer].axes for layer in expected} == expected
    assert list(find_spatial_layers(model, model.grey()))[-1] == last
    two_dimensional = (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
    for layer, module in model.layers().items():
        assert layers[layer].axes == MAP if isinstance(module, two_dimensional) else True, layer
