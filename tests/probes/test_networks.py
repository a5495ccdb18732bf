"""The probes that ask for gradients work on the field's networks, or refuse with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vizcnn
from vizcnn.errors import DegenerateResult

NETWORKS = {  # name: whether all its activations are ReLUs
    "alexnet@random": True,
    "vgg11@random": True,
    "resnet18@random": True,
    "densenet121@random": True,
    "googlenet@random": True,
    "inception_v3@random": True,
    "efficientnet_b0@random": False,
    "convnext_tiny@random": False,
    "shufflenet_v2_x1_0@random": True,
    "tiny": True,
    "lecture": True,
    "simple": True,
}
REAL = {"squeezenet1_0": "squeezenet1_0.fp16.pth", "mobilenet_v2": "mobilenet_v2.fp16.pth"}


def look_at(model: vizcnn.Model, *, relus_only: bool) -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(model.input.channels, *model.input.size, generator=random)
    for found in (vizcnn.Saliency()(model, image), vizcnn.Cam(method="eigen-cam")(model, image)):
        assert found.values.shape == (1, 1, *model.input.size)
        assert np.isfinite(found.values).all()
    first = next(name for name, module in model.layers().items() if isinstance(module, nn.Conv2d))
    guided = vizcnn.Saliency(method="guided-backprop")
    if not relus_only:
        with pytest.raises(DegenerateResult, match="this method's rule is defined for ReLU only"):
            guided(model, image)
        return
    assert guided(model, image).values.any()
    projection = vizcnn.Deconvnet()(model, image, f"{first}:0").panels[0]
    kernel = model.layer(first)
    assert isinstance(kernel, nn.Conv2d)
    assert projection.values.shape[1] <= kernel.kernel_size[0]


@pytest.mark.parametrize("spec", NETWORKS)
def test_on(spec: str) -> None:
    look_at(vizcnn.load(spec), relus_only=NETWORKS[spec])


@pytest.mark.parametrize("name", REAL)
def test_on_real_weights(data: Path, name: str) -> None:
    look_at(vizcnn.load(f"{name}@{data / 'weights' / REAL[name]}"), relus_only=True)
