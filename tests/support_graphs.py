"""Random networks for the incremental engine. VIZCNN_EXAMPLES=5000 looks further, at others each time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from support import Size, enliven, picture
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult
from vizcnn.models.layers.dryrun import watch_layers

EXAMPLES = os.environ.get("VIZCNN_EXAMPLES")


def thorough(share: float) -> settings:
    """This share of the examples: always the same 150 in all, or as many others as the environment asks for."""
    return settings(
        max_examples=max(1, round(share * int(EXAMPLES or 150))),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Residual(nn.Module):
    """A shortcut around a branch."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, how: str) -> None:
        super().__init__()
        self.branch, self.shortcut, self.how = branch, shortcut, how

    def extra_repr(self) -> str:
        return self.how

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        if self.how == "in place":
            y += self.shortcut(x)
            return F.relu(y, inplace=True)
        if self.how == "onto the shortcut":
            other: Tensor = self.shortcut(x) * 0.5
            return other.add_(y)
        return torch.add(self.shortcut(x), y, alpha=2) if self.how == "twice" else F.relu(y + self.shortcut(x))


class Join(nn.Module):
    """Branches side by side."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Dense(nn.Module):
    """Each layer, activated before its kernels of one place, reads all that came before it."""

    def __init__(self, channels: int, inplace: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + 4 * i),
                nn.ReLU(inplace=inplace),
                nn.Conv2d(channels + 4 * i, 8, 1, bias=inplace),
                nn.BatchNorm2d(8),
                nn.ReLU(inplace=inplace),
                nn.Conv2d(8, 4, 3, padding=1),
            )
            for i in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


class Split(nn.Module):
    """A part of the channels goes through a branch, the rest does not."""

    def __init__(self, branch: nn.Module, how: str) -> None:
        super().__init__()
        self.branch, self.how = branch, how

    def extra_repr(self) -> str:
        return self.how

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        if self.how == "chunk":
            kept, changed = x.chunk(2, dim=1)
        elif self.how == "split":
            kept, changed = torch.split(x, [half, x.shape[1] - half], 1)
        else:
            kept, changed = x[:, :half], x[:, half:]
        return torch.cat((kept, self.branch(changed)), 1)


class Excite(nn.Module):
    """Squeeze and excitation: every channel weighed by what the whole map holds."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.down, self.up, self.how = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1), how

    def extra_repr(self) -> str:
        return self.how

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True) if self.how == "mean" else F.adaptive_avg_pool2d(x, 1)
        weights = self.up(F.relu(self.down(means))).sigmoid()  # (N, C, 1, 1)
        return weights * x if self.how == "mean" else x.mul_(weights)


class Apply(nn.Module):
    """A function with a name to print."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shuffled(x: Tensor, how: str) -> Tensor:
    n, c, h, w = x.shape
    if how == "view":
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
    return x.reshape(n, 4, c // 4, h, w).permute(0, 2, 1, 3, 4).flatten(1, 2)


def grown(x: Tensor) -> Tensor:
    small = F.avg_pool2d(x, 2)
    return x + F.interpolate(small, size=x.shape[2:], mode="nearest")


LOCAL: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu in place": lambda x: x.relu_(),
    "functional relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "sigmoid": lambda x: 3 * torch.sigmoid(x) - 1,
    "gelu": F.gelu,
    "x sigmoid(x) in place": lambda x: x.mul_(x.sigmoid()),
    "shuffle by view": lambda x: shuffled(x.contiguous(), "view"),
    "shuffle by permute": lambda x: shuffled(x, "permute"),
    "both signs": lambda x: torch.cat([x.relu(), (-x).relu()], 1)[:, : x.shape[1]],
    "in place and beside it": lambda x: x.clone().relu_() + 0.5 * x,
    "the changed and the old are one": lambda x: x + x.relu_(),
    "pooled and grown": grown,
    "doubled": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "constants": lambda x: 1.5 - (x * 2 - 0.5) / 3,
    "clamped": lambda x: x.clamp(-1, 1.5),
    "padded": lambda x: F.pad(x, (1, 0, 2, 1)),
    "every second": lambda x: x[:, :, ::2, 1::2],
    "cut": lambda x: x[:, :, 1:-1, 2:],
}


PADDING_MODES: list[Literal["zeros", "reflect", "replicate"]] = ["zeros"] * 6
PADDING_MODES += ["reflect", "replicate"]
Layer = Callable[[int], nn.Module]
"""Makes a layer for a number of channels that is a multiple of four."""


@st.composite
def convs(draw: st.DrawFn, *, same: bool = False) -> Layer:
    """Of any kind, or one that keeps the map's size and number of channels."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2), (3, 3)]))
    most = [min(k, d * (k - 1)) for k, d in zip(kernel, dilation, strict=True)]  # beyond, torch 2.13 may crash on a CPU
    padding = (draw(st.integers(0, most[0])), draw(st.integers(0, most[1])))
    groups, factor = draw(st.sampled_from([1, 1, 1, 2, 4, 0])), draw(st.sampled_from([1, 1, 2]))
    mode = draw(st.sampled_from(PADDING_MODES))
    bias = draw(st.booleans())
    if same:
        kernel = (kernel[0] // 2 * 2 + 1, kernel[1] // 2 * 2 + 1)
        stride, factor = (1, 1), 1
        padding = (dilation[0] * (kernel[0] // 2), dilation[1] * (kernel[1] // 2))

    def conv(c: int) -> nn.Module:
        out = c * factor if c * factor <= 24 else c
        return nn.Conv2d(c, out, kernel, stride, padding, dilation, groups or np.gcd(c, out), bias, mode)

    return conv


@st.composite
def pools(draw: st.DrawFn) -> Layer:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
    ceil, count, dilation = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([1, 1, 2]))
    if draw(st.booleans()):
        return lambda c: nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)  # noqa: ARG005
    divisor = draw(st.sampled_from([None, None, 5]))
    return lambda c: nn.AvgPool2d(kernel, stride, padding, ceil, count, divisor)  # noqa: ARG005


@st.composite
def activation_modules(draw: st.DrawFn) -> Layer:
    inplace = draw(st.booleans())
    kind = draw(st.sampled_from([nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.PReLU, nn.Dropout]))
    return lambda c: kind() if kind is nn.PReLU else kind(inplace=inplace)  # noqa: ARG005


@st.composite
def blocks(draw: st.DrawFn) -> Layer:
    """Residual, joined, split, dense and excited branches, and two convolutions with what stands between them."""
    one, two, other = draw(convs(same=True)), draw(convs(same=True)), draw(convs(same=True))
    kind = draw(st.sampled_from(["residual", "projected", "join", "split", "dense", "excite", "bottleneck"]))
    how = draw(st.sampled_from(["in place", "onto the shortcut", "twice", "new"]))
    part = draw(st.sampled_from(["chunk", "split", "slice"]))
    pool = draw(st.booleans())

    def branch(c: int) -> nn.Sequential:
        return nn.Sequential(one(c), nn.BatchNorm2d(c), nn.ReLU(inplace=True), two(c), nn.BatchNorm2d(c))

    def block(c: int) -> nn.Module:
        if kind == "residual":
            return Residual(branch(c), nn.Identity(), how)
        if kind == "projected":
            first = nn.Conv2d(c, c, 3, 2, 1)
            return Residual(nn.Sequential(first, *branch(c)), nn.Conv2d(c, c, 1, 2), how)
        if kind == "join":
            return Join([one(c), nn.MaxPool2d(3, 1, 1) if pool else two(c), nn.Sequential(other(c), nn.ReLU())])
        if kind == "dense":
            return Dense(c, inplace=pool)
        if kind == "split":
            half = nn.Conv2d(c // 2, c // 2, 3, 1, 1, groups=c // 2) if pool else nn.Sequential(one(c // 2), nn.ReLU())
            return Split(half, part)
        return Excite(c, "mean" if pool else "in place") if kind == "excite" else branch(c)

    return block


def applied(functions: Mapping[str, Callable[[Tensor], Tensor]]) -> st.SearchStrategy[Layer]:
    return st.sampled_from(list(functions)).map(lambda name: lambda c: Apply(name, functions[name]))  # noqa: ARG005


norms: st.SearchStrategy[Layer] = st.just(lambda c: nn.BatchNorm2d(c))
LAYERS = st.one_of(convs(), convs(same=True), pools(), norms, activation_modules(), blocks(), applied(LOCAL))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean([2, 3])


def head(kind: str, shape: Sequence[int]) -> list[nn.Module]:
    _, c, h, w = shape
    if kind == "mean":
        return [Mean(), nn.Linear(c, 6)]
    if kind == "flatten":
        return [nn.Flatten(), nn.Linear(c * h * w, 10), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(10, 6)]
    if kind == "conv":
        return [nn.Conv2d(c, 6, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    side = 2 if kind == "four" else 1
    return [nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(c * side * side, 6)]


class Case:
    """A network that is alive, its images and what to ask."""

    def __init__(self, model: vizcnn.Model, images: Tensor, targets: Sequence[str], options: dict[str, Any]) -> None:
        self.model, self.images, self.targets, self.options = model, images, targets, options

    def __repr__(self) -> str:
        return f"{self.model.network}, {tuple(self.images.shape)}, {self.targets}, {self.options}"


@st.composite
def cases(draw: st.DrawFn, layers: st.SearchStrategy[Layer]) -> Case:
    size = draw(st.tuples(st.integers(20, 36), st.integers(20, 36)))
    channels, seed = draw(st.sampled_from([3, 3, 1])), draw(st.integers(0, 9))
    images = picture(size, channels, draw(st.sampled_from([1, 1, 2])), seed)
    centre = {"mean": [0.4] * channels, "std": [0.3] * channels} if draw(st.booleans()) else {}
    kind = draw(st.sampled_from(["mean", "flatten", "conv", "one", "four"]))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(channels, 8, 3, draw(st.integers(1, 2)), draw(st.integers(0, 1))))
        model = vizcnn.Model(network, size=size, channels=channels, **centre)  # type: ignore[arg-type]
        x = network(images[:1])
        for make in draw(st.lists(layers, min_size=2, max_size=9)):
            x = _extended(network, make, x)
        network.extend(head(kind, x.shape))
        enliven(network, model.normalised(images), seed)
    return Case(model, images, draw(asked(network, images)), draw(options(size)))


def _extended(network: nn.Sequential, make: Layer, x: Tensor) -> Tensor:
    """Append a layer and return what it makes of x, where the map has space for it and stays small."""
    try:
        layer = make(x.shape[1]).eval()
        y: Tensor = layer(x.clone())
    except (RuntimeError, ValueError):  # the map is smaller than the layer's window
        return x
    if y.dim() != 4 or y.shape[1] % 4 or y.shape[1] > 24 or not 0 < min(y.shape[2:]) <= max(y.shape) <= 48:
        return x
    if not y.isfinite().all():  # a window of a pool lies in the padding alone
        return x
    network.append(layer)
    return y


@st.composite
def asked(draw: st.DrawFn, network: nn.Module, images: Tensor) -> tuple[str, ...]:
    """A class, and some units of layers."""
    shapes: dict[str, Sequence[int]] = {}
    with torch.no_grad(), watch_layers(network, lambda name, output: shapes.update({name: tuple(output.shape)})):
        network(images[:1])
    targets = [draw(st.sampled_from(["0", "1", "p(2)"]))]
    for name in draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=3, unique=True)):
        _, c, *places = shapes[name]
        place = "@{},{}".format(*(draw(st.integers(0, side - 1)) for side in places)) if places else ""
        targets.append(f"{name}:{draw(st.integers(0, c - 1))}{place if draw(st.booleans()) else ''}")
    return tuple(targets)


@st.composite
def options(draw: st.DrawFn, size: Size) -> dict[str, Any]:
    window = tuple(draw(st.integers(side // 5, side if draw(st.integers(0, 5)) == 5 else side // 2)) for side in size)
    stride = tuple(draw(st.integers(max(1, side // 2), side)) for side in window)
    fill, batch = draw(st.sampled_from(["mean", "model", "blur", "#c04020"])), draw(st.sampled_from([None, None, 1, 7]))
    return {"window": window, "stride": stride, "fill": fill, "batch": batch}


def run(case: Case, engine: Literal["auto", "plain", "incremental"]) -> vizcnn.Heatmap:
    probe = vizcnn.Occlusion(engine=engine, **case.options)
    return probe(case.model, case.images, list(case.targets), progress=False, strict=True)


def plainly(case: Case) -> tuple[Case, vizcnn.Heatmap]:
    """The plain engine's maps, of the classes alone where a unit is dead, and the case for which they are."""
    try:
        return case, run(case, "plain")
    except DegenerateResult:
        case = Case(case.model, case.images, case.targets[:1], case.options)
    try:
        return case, run(case, "plain")
    except DegenerateResult:
        reject()
