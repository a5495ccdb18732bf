"""The architectures of the bundled networks. Every ReLU is a module of its own and none works in place,
so each unit of these networks can be hooked, read and explained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))  # (N, outputs, H/stride, W/stride)
        y = self.bn2(self.conv2(y))  # (N, outputs, H/stride, W/stride)
        out: Tensor = self.relu2(y + self.shortcut(x))  # (N, outputs, H/stride, W/stride)
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Tiny(nn.Module):
    """A compact residual network for 64x64 photographs: 7x7 stem, four stages, one linear layer.

    The last stage keeps the resolution of the third, so the last map has 8x8 places. Global average pooling stands
    directly before the linear layer, so class activation maps are exact.
    """

    WIDTHS = (32, 80, 192, 352)
    BLOCKS = (1, 1, 2, 1)
    STRIDES = (1, 2, 2, 1)

    def __init__(self, classes: int = 202) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, self.WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1, self.layer2, self.layer3, self.layer4 = map(self._stage, range(4))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.WIDTHS[-1], classes)

    @classmethod
    def _stage(cls, stage: int) -> nn.Sequential:
        width, before = cls.WIDTHS[stage], cls.WIDTHS[max(stage - 1, 0)]
        first = BasicBlock(before, width, cls.STRIDES[stage])
        return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(cls.BLOCKS[stage] - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 32, H/2, W/2)
        x = self.layer2(self.layer1(x))  # (N, 80, H/4, W/4)
        x = self.layer4(self.layer3(x))  # (N, 352, H/8, W/8)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))  # (N, classes)
        return logits


class Eleven(nn.Module):
    """Five convolutions in the manner of AlexNet (Krizhevsky et al. 2012), the first with 96 kernels of 11x11.

    Batch normalization and global average pooling stand in for its local normalization and its dense layers: what
    is small enough to ship, and class activation maps are exact.
    """

    def __init__(self, classes: int = 202) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=5, bias=False)
        self.bn1 = nn.BatchNorm2d(96)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(96, 128, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(128)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(128, 160, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(160)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(160, 160, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(160)
        self.relu4 = nn.ReLU()
        self.conv5 = nn.Conv2d(160, 224, 3, padding=1, bias=False)
        self.bn5 = nn.BatchNorm2d(224)
        self.relu5 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(224, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))  # (N, 96, H/4, W/4)
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))  # (N, 128, H/8, W/8)
        x = self.relu3(self.bn3(self.conv3(x)))  # (N, 160, H/8, W/8)
        x = self.relu4(self.bn4(self.conv4(x)))  # (N, 160, H/8, W/8)
        x = self.relu5(self.bn5(self.conv5(x)))  # (N, 224, H/8, W/8)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))  # (N, classes)
        return logits


class Lecture(nn.Module):
    """The network of the lecture: two 3x3 convolutions with pooling, two dense layers; 28x28 digits."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 25, 3)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(25, 50, 3)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 5 * 5, 100)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))  # (N, 25, 13, 13)
        x = self.pool2(self.relu2(self.conv2(x)))  # (N, 50, 5, 5)
        x = self.relu3(self.fc1(torch.flatten(x, 1)))  # (N, 100)
        logits: Tensor = self.fc2(x)  # (N, classes)
        return logits


class Simple(nn.Module):
    """One 5x5 convolution, pooling, two dense layers; 28x28 digits. Its filters are large enough to read."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 30, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(30 * 12 * 12, 100)
        self.relu2 = nn.ReLU()
        self.fc2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))  # (N, 30, 12, 12)
        x = self.relu2(self.fc1(torch.flatten(x, 1)))  # (N, 100)
        logits: Tensor = self.fc2(x)  # (N, classes)
        return logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"tiny": Tiny, "eleven": Eleven, "lecture": Lecture, "simple": Simple}
"""What builds each bundled network, for a number of classes."""
