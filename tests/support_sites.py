"""What tests of sites and anatomy share: a network with most of what can lead into a unit, and plain hooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from support import enliven, picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.graph.sites import Site


class Undecided(nn.Module):
    """Looks at values while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x if x.mean() > 0.3 else 1 - x)
        return out


class Block(nn.Module):
    """A residual block whose one ReLU works twice, in place, as in torchvision's."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=2)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.relu(y)
        return out


class Varied(nn.Module):
    """Most of what can lead into a unit: norms, biases, shortcuts, strides, dilation, groups, pooling, joined channels,
    a linear bottleneck, a scale, functions in place of modules, a dense layer on a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 2, 2, dilation=1)
        self.block1, self.block2 = Block(8, 8, 1), Block(8, 12, 2)
        self.left, self.right = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 6, 3, padding=2, dilation=2)
        self.narrow, self.narrow_bn = nn.Conv2d(10, 4, (1, 3), padding=(0, 1)), nn.BatchNorm2d(4)
        self.wide = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.gamma = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.act = nn.SiLU()
        self.fc1, self.fc2 = nn.Linear(8 * 2 * 2, 7), nn.Linear(7, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = self.block2(self.block1(x))
        x = torch.cat([F.leaky_relu(self.left(x)), self.right(x)], 1)
        x = self.narrow_bn(self.narrow(x))
        x = F.avg_pool2d(self.act(self.gamma * self.wide(x) - 0.25), 2)
        out: Tensor = self.fc2(F.relu6(self.fc1(x.flatten(1))))
        return out


def make_varied() -> vizcnn.Model:
    """Always the same one, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Varied().double().eval()
    enliven(network, picture((40, 32)).double())
    return vizcnn.Model(network, size=(40, 32), mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])


def read_by_hooks(model: vizcnn.Model, images: Tensor, sites: Sequence[Site]) -> dict[str, Tensor]:
    """What each site gives, by its name, read by plain hooks on the network; the last call of each module counts."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, module in model.network.named_modules():
        handles.append(module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.clone()})))
    with torch.no_grad():
        output = model(images)
    for handle in handles:
        handle.remove()
    found = {}
    for site in sites:
        layer = site.read.removeprefix("relu(").removeprefix("relu6(").rstrip(")")
        value = output if site.is_output else seen[layer]
        value = F.relu(value) if site.read.startswith("relu(") else value
        found[site.name] = F.relu6(value) if site.read.startswith("relu6(") else value
    return found
