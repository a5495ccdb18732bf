"""Receptive fields against two oracles: pixels poisoned one by one, and numbers that are well known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vizcnn
from vizcnn import testing
from vizcnn.errors import ParameterError, ShapeError, VizcnnWarning
from vizcnn.geometry import Box
from vizcnn.receptive import ReceptiveField, receptive_fields, trace_fields
from vizcnn.receptive.measure import measure_fields

SIDES = ("top", "bottom", "left", "right")


def by_pixels(network: nn.Module, size: tuple[int, int]) -> dict[str, tuple[np.ndarray, ...]]:
    """The oracle: (top, bottom, left, right) of each child's units, from one run for every single pixel.

    What interpolation weighs with zero does not count, though zero times NaN is NaN."""
    h, w = size
    images = torch.zeros(h * w, 3, h * w)
    images[torch.arange(h * w), :, torch.arange(h * w)] = torch.nan
    x, found = images.view(h * w, 3, h, w), dict[str, tuple[np.ndarray, ...]]()
    with torch.no_grad():
        for name, module in network.named_children():
            seen = module(x.isnan().double()) != 0 if isinstance(module, nn.Upsample) else None
            x = module(x.clone())  # (H*W, C, h, w)
            x = x if seen is None else torch.zeros_like(x).masked_fill(seen, torch.nan)
            hit: Any = x.isnan().any(1).view(h, w, *x.shape[2:]).numpy()  # (H, W, h, w)
            found[name] = (*ends(hit.any((1, 3))), *ends(hit.any((0, 2))))
    return found


def ends(hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, last = hit.argmax(0), len(hit) - hit[::-1].argmax(0)
    return first, np.where(hit.any(0), last, 0)


def assert_same(fields: Mapping[str, ReceptiveField | None], others: Mapping[str, ReceptiveField]) -> None:
    for name, field in fields.items():
        assert field is not None
        for side in SIDES:
            np.testing.assert_array_equal(getattr(field, side), getattr(others[name], side), f"{side} of {name}")


def assert_equal(fields: Mapping[str, ReceptiveField | None], network: nn.Module, size: tuple[int, int]) -> None:
    """Equal to the oracle. A layer of which one place at most sees anything may be missing: what makes a map of a
    single place is not told from a vector that is viewed as one."""
    for name, (top, bottom, left, right) in by_pixels(network, size).items():
        single = np.count_nonzero(bottom > top) <= 1 and np.count_nonzero(right > left) <= 1
        assert name in fields or single
        for side, sides in zip(SIDES, (top, bottom, left, right), strict=True):
            if name in fields:
                where = f"{side} of {name} in {network}, {size}"
                np.testing.assert_array_equal(getattr(fields[name], side), sides, where)


class Sum(nn.Module):
    """A shortcut beside a branch, added in place."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        y += x
        return F.relu(y, inplace=True)


class Join(nn.Module):
    """Branches of different fields side by side, one of them an overlapping pool; then channels change places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        joined = torch.cat([F.max_pool2d(left, 3, 1, 1), self.conv(right)], 1)  # (N, 3C/2, h, w)
        n, c, h, w = joined.shape
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)[:, : x.shape[1]]


class Squeeze(nn.Module):
    """Every channel weighed by its mean over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Skip(nn.Module):
    """Every second place, the channels padded with nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (1, 0, 2, 1, 0, 2))[:, 2:]


@st.composite
def layers(draw: st.DrawFn, channels: int) -> nn.Module:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    dilation, ceil = draw(st.integers(1, 2)), draw(st.booleans())
    made: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: nn.Conv2d(channels, channels, kernel, stride, padding, dilation, draw(st.sampled_from([1, 2]))),
        "pool": lambda: nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil),
        "average": lambda: nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil),
        "adaptive": lambda: nn.AdaptiveAvgPool2d((draw(st.integers(1, 9)), draw(st.integers(1, 9)))),
        "sum": lambda: Sum(channels, kernel[0]),
        "join": lambda: Join(channels),
        "norm": lambda: nn.BatchNorm2d(channels),
        "squeeze": Squeeze,
        "skip": Skip,
        "up": lambda: nn.Upsample(scale_factor=2),
        "smooth": lambda: nn.Upsample(size=(11, 7), mode="bilinear", align_corners=ceil),
        "transposed": lambda: nn.ConvTranspose2d(channels, channels, kernel, stride, padding, dilation=dilation),
        "last": lambda: nn.Hardswish(inplace=True),
        "reflect": lambda: nn.ReflectionPad2d(1),
        "group": lambda: nn.GroupNorm(2, channels),
        "instance": lambda: nn.InstanceNorm2d(channels),
        "blocks": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)),
    }
    return made[draw(st.sampled_from([*made]))]()


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, int]]:
    """A stem and up to six layers, as many as the image has space for, with the size of an input."""
    size = draw(st.tuples(st.integers(9, 17), st.integers(9, 17)))
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=draw(st.integers(0, 1))))
    for layer in draw(st.lists(layers(4), max_size=6)):
        try:
            with torch.no_grad():
                out = nn.Sequential(*network, layer).eval()(torch.zeros(1, 3, *size))
        except (RuntimeError, ValueError):  # the map has become smaller than the window
            break
        if max(out.shape) > 60 or not out.isfinite().all():  # a window of a pool lies in the padding alone
            break
        network.append(layer)
    return network.eval(), size


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=60, deadline=None)
@given(networks())
def test_the_arithmetic_equals_poisoning_pixel_by_pixel(case: tuple[nn.Sequential, tuple[int, int]]) -> None:
    network, size = case
    assert_equal(trace_fields(vizcnn.Model(network, size=size), size), network, size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=15, deadline=None)
@given(networks())
def test_the_measurement_equals_poisoning_pixel_by_pixel(case: tuple[nn.Sequential, tuple[int, int]]) -> None:
    network, size = case
    assert_equal(measure_fields(vizcnn.Model(network, size=size), size), network, size)


def test_the_field_is_the_support_of_the_gradient() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 4, 3, 2, dilation=2), nn.AvgPool2d(2, 1))
    field = receptive_fields(vizcnn.Model(network, size=(29, 33)))["3"]
    for y in range(field.units[0]):
        for x in range(field.units[1]):
            image = torch.rand(1, 3, 29, 33, requires_grad=True)
            (slope,) = torch.autograd.grad(network(image)[0, :, y, x].sum(), image)
            rows, columns = (slope.abs().sum((0, 1, d)).nonzero() for d in (3, 2))
            assert field.box(y, x) == Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "offset"),
    [
        ("alexnet", "features.2", 19, 8, -2),
        ("alexnet", "features.10", 163, 16, -66),
        ("alexnet", "features.12", 195, 32, -66),
        ("vgg16", "features.30", 212, 32, -90),
        ("resnet18", "layer4", 435, 32, -217),
        ("resnet50", "layer4", 427, 32, -213),  # 483 in Araujo's table, whose network has its strides elsewhere
        ("inception_v3", "Mixed_7c", 1311, 32, -618),
    ],
)
def test_known_numbers(name: str, layer: str, size: int, stride: int, offset: int) -> None:
    model = vizcnn.load(f"{name}@random")
    field = receptive_fields(model)[layer]
    assert (field.size, field.stride, field.offset) == ((size,) * 2, (stride,) * 2, (offset,) * 2)
    starts = offset + stride * np.arange(field.units[0])
    np.testing.assert_array_equal(field.top, starts.clip(0))
    np.testing.assert_array_equal(field.bottom, (starts + size).clip(max=model.input.size[0]))


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "convnext_tiny", "googlenet", "efficientnet_b0", "densenet121"])
def test_whole_networks_equal_their_measurement(name: str) -> None:
    model, size = vizcnn.load(f"{name}@random"), (48, 64)
    computed = trace_fields(model, size)
    assert len(computed) > 100
    assert_same(computed, measure_fields(model, size))


def test_layers_come_in_order_of_execution_and_a_reused_one_at_its_last_call() -> None:
    class Reusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()
            self.second = nn.Conv2d(3, 3, 5)
            self.first = nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.relu(self.second(self.relu(self.first(x)))).flatten(1)
            return out

    fields = receptive_fields(vizcnn.Model(Reusing(), size=16))
    assert list(fields) == ["first", "second", "relu"]
    assert [field.size[0] for field in fields.values()] == [3, 7, 7]


class Deciding(nn.Module):
    """Looks at its numbers, so no run without numbers is possible."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x if float(x.nan_to_num().sum()) > -1e9 else -x)
        return out


class Sharing(nn.Module):
    """Changes a tensor through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :1] += self.conv(x)[:, :1]
        y[:, 1:, 2:4] = x[:, 1:, 5:7]
        out: Tensor = self.last(y)
        return out


class Filling(Sharing):
    """Makes a tensor of nothing and fills it in parts."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(x.shape, device=x.device) if x.shape[2] > 3 else x.new_zeros(x.shape)
        y.view(len(x), -1, x.shape[3])[:, :8] = self.conv(x).flatten(1, 2)[:, :8]
        z = torch.zeros_like(y)
        z[..., 1:] = y[..., 1:]
        out: Tensor = self.last(z)
        return out


class Transforming(nn.Module):
    """Attention in one piece, and a look at numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 4, 4), nn.Identity()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x if float(x.nan_to_num().sum()) > -1e9 else -x)
        rows = y.permute(0, 2, 3, 1).flatten(0, 1)  # (N h, w, C)
        mixed = self.attention(rows, rows, rows, need_weights=False)[0].unflatten(0, y.shape[::2])
        out: Tensor = self.last(mixed.permute(0, 3, 1, 2))
        return out


@pytest.mark.parametrize(
    "network",
    [Deciding(), Sharing(), Filling(), Transforming(), nn.Sequential(nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 3))],
)
def test_what_looks_at_numbers_or_changes_shared_memory_is_followed(network: nn.Module) -> None:
    model = vizcnn.Model(network.eval(), size=16)
    fields = trace_fields(model, (16, 16))
    assert_same(fields, measure_fields(model, (16, 16)))
    assert len(fields) > 1


class Sampling(nn.Module):
    """Reads places that it computes, which no rule can follow; channels last behind it."""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict, self.conv, self.last = strict, nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.strict and not x.is_meta and not x.isfinite().all():
            raise ValueError("images must be finite")
        y = self.conv(x)
        grid = F.affine_grid(torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]).expand(len(x), -1, -1), y.shape, False)
        out: Tensor = self.last(F.grid_sample(y, grid, align_corners=False).permute(0, 2, 3, 1))
        return out


def test_only_what_has_no_rule_is_measured() -> None:
    model = vizcnn.Model(Sampling(), size=(8, 12))
    computed = trace_fields(model, (8, 12))
    assert computed["last"] is None
    fields = receptive_fields(model)
    assert list(fields) == ["conv", "last"]
    assert_same({"conv": computed["conv"]}, fields)
    assert fields["last"].units == (8, 12)
    assert fields["last"].box(0, 0) == Box(
        0, 1, 4, 5
    )  # reads rows 1.75 and columns 2.75, and what the kernel sees there
    assert list(receptive_fields(model, layers=["conv"])) == ["conv"]


@pytest.mark.parametrize(
    "name",
    ["ReLU", "ReLU6", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardtanh", "Hardswish", "Hardsigmoid", "LeakyReLU"],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_no_activation_needs_a_measurement(name: str, inplace: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), getattr(nn, name)(inplace=inplace), nn.MaxPool2d(2))
    fields = trace_fields(vizcnn.Model(network, size=(8, 8)), (8, 8))
    assert [field and field.size for field in fields.values()] == [(3, 3), (3, 3), (4, 4)]


def test_unpooling_may_write_anywhere() -> None:
    """Where it writes is decided by numbers, which poisoned ones would change."""

    class Unpooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

        def forward(self, x: Tensor) -> Any:
            return self.unpool(*self.pool(x[:, :, :4, :6]))

    field = receptive_fields(vizcnn.Model(Unpooling(), size=8))["unpool"]
    assert field.units == (4, 6)
    assert {field.box(i, j) for i in range(4) for j in range(6)} == {Box(0, 0, 4, 6)}


def test_a_network_that_refuses_nan_does_without_measured_fields() -> None:
    model = vizcnn.Model(Sampling(strict=True), size=8)
    with pytest.warns(VizcnnWarning, match="fields of last are left out: Sampling .*ValueError: images must be finite"):
        assert list(receptive_fields(model)) == ["conv"]


def test_a_measurement_that_would_take_too_long_is_left_out() -> None:
    model = vizcnn.Model(Sampling(), size=8)
    with pytest.warns(VizcnnWarning, match=r"fields of last are left out: .* measuring them would take about \d+ s"):
        assert list(receptive_fields(model, seconds=1e-6)) == ["conv"]
    assert list(receptive_fields(model)) == ["conv", "last"]


def test_a_measurement_shows_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizcnn.progress.DELAY", 0.0)
    model = vizcnn.Model(Sampling(), size=8)
    receptive_fields(model)
    assert "receptive fields" in capsys.readouterr().err
    receptive_fields(model, progress=False)
    assert not capsys.readouterr().err


INTERPOLATIONS: list[dict[str, Any]] = [
    *({"size": size, "mode": mode, "align_corners": corners} for size in ((32, 27), (48, 17), (31, 9), (7, 5), (1, 3))
      for mode in ("bilinear", "bicubic") for corners in (False, True)),
    *({"scale_factor": factor, "mode": mode, "recompute_scale_factor": anew} for factor in (2.0, 3.0, 2.3, 0.6)
      for mode in ("bilinear", "bicubic") for anew in (False, True)),
    *({"size": size, "mode": mode, "antialias": True} for size in ((32, 4), (7, 27))
      for mode in ("bilinear", "bicubic")),
]  # fmt: skip


@pytest.mark.parametrize("how", INTERPOLATIONS, ids=lambda how: " ".join(map(str, how.values())))
def test_smooth_interpolation_sees_what_it_gives_weight(how: dict[str, Any]) -> None:
    """The oracle is the support of the gradient in float64; a weight of zero, as at the middle of x3, reads nothing."""

    class Resizing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(F.interpolate(x, **how))
            return out

    network, size = Resizing(), (16, 9)
    model = vizcnn.Model(network, size=size, channels=1)
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    h, w = network(image).shape[2:]
    slopes = torch.autograd.functional.jacobian(lambda x: network(x).sum(3).flatten(), image)  # (h, 1, 1, H, W)
    top, bottom = ends((slopes.abs().sum((1, 2, 4)) != 0).T.numpy())
    slopes = torch.autograd.functional.jacobian(lambda x: network(x).sum(2).flatten(), image)  # (w, 1, 1, H, W)
    left, right = ends((slopes.abs().sum((1, 2, 3)) != 0).T.numpy())
    expected = {"last": ReceptiveField(top, bottom, left, right, (0, 0), (0, 0), (0, 0))}
    assert_same(trace_fields(model, size), expected)
    assert_same(measure_fields(model, size), expected)
    assert (len(top), len(left)) == (h, w)


def test_a_measured_field_repeats_like_a_computed_one() -> None:
    network = Deciding()
    found = measure_fields(vizcnn.Model(network, size=32), (32, 32))["body.2"]
    computed = receptive_fields(vizcnn.Model(network.body, size=32))["2"]
    assert (found.size, found.stride, found.offset) == (computed.size, computed.stride, computed.offset)
    assert found.size == (7, 7)


def test_other_precisions_are_measured_on_a_copy() -> None:
    network = Deciding().double()
    assert measure_fields(vizcnn.Model(network, size=16), (16, 16))["body"].size == (7, 7)
    assert next(network.parameters()).dtype == torch.float64


def test_layers_without_space_are_left_out_and_channels_last_are_not() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, (1, 2)), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x).permute(0, 2, 3, 1))  # (N, h, w, 4)
            out: Tensor = self.fc(y.mean((1, 2)))  # (N, 2)
            return out

    fields = receptive_fields(vizcnn.Model(Last(), size=(8, 11)))
    assert list(fields) == ["conv", "norm"]
    assert fields["norm"].units == (6, 5)
    assert fields["norm"].stride == (1.0, 2.0)
    assert_same({"norm": fields["conv"]}, fields)


def test_units_that_see_nothing_have_an_empty_field() -> None:
    field = receptive_fields(vizcnn.Model(nn.Sequential(nn.Conv2d(3, 1, 1, padding=2)), size=3))["0"]
    assert field.top.tolist() == [0, 0, 0, 1, 2, 0, 0]
    assert field.bottom.tolist() == [0, 0, 1, 2, 3, 0, 0]


def test_the_network_is_left_as_it_was() -> None:
    model = testing.delicate_model()
    before = testing.state_of(model)
    for find in (receptive_fields, lambda m: measure_fields(m, (16, 16))):
        find(model)
        assert testing.state_of(model) == before


def test_what_a_network_keeps_from_run_to_run_is_not_disturbed() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = x.new_zeros(())
            out: Tensor = self.conv(x + self.kept)
            return out

    model = vizcnn.Model(Keeping(), size=8)
    assert receptive_fields(model)["conv"].size == (3, 3)
    assert vizcnn.Layers()(model).rows[0][2] == "4x6x6"
    assert vars(model.network)["kept"] is None
    trace_fields(model, (8, 8))
    assert model(torch.zeros(1, 3, 8, 8)).is_cpu


def test_errors() -> None:
    model = vizcnn.Model(nn.Sequential(nn.Conv2d(3, 1, 3)), size=8)
    with pytest.raises(ShapeError, match=r"a positive height and width in px, got \(0, 8\)"):
        receptive_fields(model, (0, 8))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        receptive_fields(model, (2, 2))
    with pytest.raises(ParameterError, match="the layer has units 0,0 to 5,5, got 6,0"):
        receptive_fields(model)["0"].box(6, 0)


def test_gaps_of_a_transposed_convolution_are_no_channels_last() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Squeeze(), nn.ConvTranspose2d(4, 4, 1, (2, 1))).eval()
    assert list(receptive_fields(vizcnn.Model(network, size=9)))[-1] == "2"
