"""The incremental engine gives the plain engine's numbers on the field's networks, with random weights that keep the
signal alive."""

from __future__ import annotations

import pytest
import torch
from support import Size, check_same, enliven, picture
from torch import nn

import vizcnn
from vizcnn.models import _torchvision

NETWORKS: dict[str, tuple[Size, str]] = {  # name: the size of the input, and a layer in the middle
    "alexnet": ((80, 96), "features.6"),
    "vgg11": ((64, 96), "features.8"),
    "vgg16": ((64, 64), "features.14"),
    "squeezenet1_0": ((96, 128), "features.5.expand3x3"),
    "squeezenet1_1": ((96, 96), "features.6"),
    "resnet18": ((96, 128), "layer2.0.bn1"),
    "resnet50": ((64, 96), "layer2.1.conv2"),
    "resnext50_32x4d": ((64, 64), "layer3.0.bn3"),
    "densenet121": ((64, 96), "features.denseblock2.denselayer3.conv1"),
    "googlenet": ((96, 128), "inception4a"),
    "inception_v3": ((107, 139), "Mixed_6a"),
    "mobilenet_v2": ((96, 128), "features.5.conv.1.0"),
    "mnasnet1_0": ((64, 96), "layers.9"),
    "regnet_x_400mf": ((64, 96), "trunk_output.block2"),
    "shufflenet_v2_x1_0": ((96, 96), "stage2.1"),
    "efficientnet_b0": ((64, 96), "features.3.0.block.1"),
    "convnext_tiny": ((64, 64), "features.1.1"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers_on(name: str) -> None:
    size, layer = NETWORKS[name]
    weightless = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = _torchvision.import_models().get_model(name, weights=None, num_classes=20, **weightless)
    model = vizcnn.Model(network, size=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), name=name)
    images, window = picture(size, count=4), (size[0] // 4, size[1] // 3)
    enliven(network, model.normalised(images))
    check_same(model, images[:1], [3, "p(7)", f"{layer}:5", f"{layer}:2@1,2"], window=window, stride=window)
