"""Published networks that no library loads: their architectures, as their weights want them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Darknet(nn.Sequential):
    """Tiny Darknet for the 1000 classes of ImageNet: a plain chain with batch normalization and LeakyReLU."""

    def __init__(self) -> None:
        plan = ["3-16-3", "M", "16-32-3", "M", "32-16-1", "16-128-3", "128-16-1", "16-128-3", "M", "128-32-1"]
        plan += ["32-256-3", "256-32-1", "32-256-3", "M", "256-64-1", "64-512-3", "512-64-1", "64-512-3", "512-128-1"]
        layers: list[nn.Module] = []
        for one in plan:
            if one == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            i, o, k = map(int, one.split("-"))
            layers += [nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o, eps=1e-3), nn.LeakyReLU(0.1)]
        super().__init__(*layers, nn.Conv2d(128, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Cifar(nn.Module):
    """The 20-layer residual network of He et al. for CIFAR-10, with shortcuts that skip places and add channels."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, outputs // inputs, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.more = (outputs - inputs) // 2

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more)) if self.more else x
            return F.relu(y)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16), (16, 32), (32, 64)]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(self.Block(i, o), self.Block(o, o), self.Block(o, o)) for i, o in widths
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size()[3])
        out: Tensor = self.linear(x.view(x.size(0), -1))
        return out


class LeNet(nn.Module):
    """The network of captum's tutorials for CIFAR-10: two convolutions and three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 6, 14, 14)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 16, 5, 5)
        out: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))  # (N, 10)
        return out
