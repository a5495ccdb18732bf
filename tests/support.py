"""What several test modules use: small networks, and how far two maps may be apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import vizcnn
from vizcnn.models.layers.capture import read_activations
from vizcnn.results import Provenance

ROOT = Path(__file__).parents[1]

ORIGIN = Provenance(
    version=vizcnn.__version__,
    torch="2",
    probe="filters",
    options={},
    details={"layer": "conv"},
    model="net",
    weights_sha256="0" * 64,
    input={},
    device="cpu",
    images=(),
    targets=(),
    target_specs=(),
    seed=0,
    paper="nobody 2026",
)
"""Where a result made up for a test comes from."""

Size = tuple[int, int]


def picture(size: Size, channels: int = 3, count: int = 1, seed: int = 0) -> Tensor:
    """Images with large shapes and fine grain (N, C, H, W), so that covering a part matters whatever covers it."""
    random = torch.Generator().manual_seed(seed)
    shapes = F.interpolate(torch.rand(count, channels, 4, 4, generator=random), size, mode="bilinear")
    return (0.7 * shapes + 0.3 * torch.rand(count, channels, *size, generator=random)).clamp(0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers of this shape, float64, always the same ones."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_folder(root: Path) -> Path:
    """A data set of two classes: two pictures of 20 x 24 px in `cat`, three in `dog`."""
    for i, label in enumerate(["cat", "cat", "dog", "dog", "dog"]):
        (root / label).mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


@torch.no_grad()
def enliven(network: nn.Module, images: Tensor, seed: int = 0) -> None:
    """Scale the random weights layer by layer so that signals neither vanish nor explode on the way to the output, and
    give every batch normalisation the statistics of these images, disturbed a little."""
    random = torch.Generator().manual_seed(seed)

    def scale(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        size = output.square().mean().sqrt().clamp(min=1e-3)
        for parameter in module.parameters():
            parameter.div_(size)
        return output / size

    def normalise(module: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        module.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn(mean.shape, generator=random))
        module.running_var.copy_(
            (variance + 0.1 * mean.square() + 1e-3) * (0.5 + torch.rand(mean.shape, generator=random))
        )
        module.weight.copy_(0.5 + torch.rand(mean.shape, generator=random))
        module.bias.copy_(0.2 * torch.randn(mean.shape, generator=random))

    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):
            parameter.fill_(0.5)
    hooks = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(normalise))
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            hooks.append(module.register_forward_hook(scale))
    network.eval()(images)
    for hook in hooks:
        hook.remove()


def sizes(model: vizcnn.Model, images: Tensor, targets: Sequence[Any]) -> npt.NDArray[np.float64]:
    """What each target's rounding is measured by (N, T): the largest number in its layer, for a probability its own
    share of that."""
    wanted = [vizcnn.target(one).resolved(model).with_head("logits") for one in targets]
    with model.borrowed(), torch.no_grad():
        seen = read_activations(model, images, frozenset().union(*(t.layers for t in wanted)))
    largest = {name: values.flatten(1).abs().amax(1) for name, values in seen.items() if isinstance(values, Tensor)}
    found = []
    for one in wanted:
        share = one(seen).numpy() if one.quantity == "probability" else 1.0
        found.append(np.max([largest[name].numpy() for name in one.layers], 0) * share)
    return np.stack(found, 1).astype(np.float64)


def assert_same(found: vizcnn.Heatmap, plain: vizcnn.Heatmap, size: npt.NDArray[np.float64]) -> None:
    """Equal up to rounding: 1e-4 of a map's largest value, or 3e-5 of the numbers (N, T) that it is a difference of."""
    np.testing.assert_array_equal(found.scores, plain.scores)
    worst = np.abs(found.values - plain.values).max((2, 3))  # (N, T)
    allowed = 1e-4 * np.abs(plain.values).max((2, 3)) + 3e-5 * size
    assert (worst <= allowed).all(), f"differs by {worst} where {allowed} is rounding, of {found.provenance.targets}"


def check_same(model: vizcnn.Model, images: Tensor, targets: Sequence[Any], **options: Any) -> vizcnn.Heatmap:
    """The incremental engine's maps, seen to be the plain engine's and to show more than rounding."""
    targets = list(targets)
    plain = vizcnn.Occlusion(engine="plain", **options)(model, images, targets, progress=False)
    size = sizes(model, images, targets)
    alive = np.abs(plain.values).max((2, 3)) / size
    assert (alive > 1e-3).all(), f"targets that hardly look at their image: {alive}"
    found = vizcnn.Occlusion(engine="incremental", **options)(model, images, targets, progress=False)
    assert found.provenance.details["engine"] == "incremental"
    assert_same(found, plain, size)
    return found


def small_cnn(channels: int = 3, classes: int = 5) -> nn.Sequential:
    """A random convolutional network for inputs of any size; always the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
