"""Torchvision's networks for segmentation and detection, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vizcnn
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError
from vizcnn.models.outputs import settle_output
from vizcnn.models.sources.torchvision import list_tasks


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "127.0.0.1:9")


@pytest.fixture
def operators() -> None:
    list_tasks()
    if not hasattr(torch.ops.torchvision, "nms"):
        pytest.skip("the compiled operators of this torchvision cannot be loaded")


def test_names_of_all_tasks_are_known() -> None:
    tasks = list_tasks()
    for name, task in (
        ("resnet18", "classification"),
        ("lraspp_mobilenet_v3_large", "segmentation"),
        ("deeplabv3_resnet50", "segmentation"),
        ("fcn_resnet101", "segmentation"),
        ("ssdlite320_mobilenet_v3_large", "detection"),
        ("fasterrcnn_resnet50_fpn", "detection"),
    ):
        assert tasks[name] == task
    with pytest.raises(ModelNotFound, match="Did you mean 'deeplabv3_resnet50'?"):
        vizcnn.load("deeplab_resnet50")


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_segmentation_networks_are_read_at_their_map(name: str) -> None:
    model = vizcnn.load(f"{name}@random", input_size=64)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = settle_output(model(images), model.output, 1)
        assert torch.equal(maps, model.network(model.normalised(images))["out"])
    assert maps.shape == (1, 21, 64, 64)
    assert model.class_name(12) == "dog"
    assert vizcnn.load(f"{name}@random").input.size == (520, 520)
    assert model.input.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_segmentation_checkpoints_with_and_without_auxiliary_heads(tmp_path: Path, auxiliary: bool) -> None:
    from torchvision.models import get_model

    options = {"weights_backbone": None, "num_classes": 4, "aux_loss": auxiliary}
    network = get_model("deeplabv3_mobilenet_v3_large", weights=None, **options).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    model = vizcnn.load(f"deeplabv3_mobilenet_v3_large@{tmp_path}/a.pth", input_size=64)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images)["out"], network(model.normalised(images))["out"])
    assert (model.labels, model.input.size) == (None, (64, 64))
    assert "inferred 4 classes" in model.notes[0]


@pytest.mark.usefixtures("operators")
def test_detectors_take_images_as_they_are() -> None:
    model = vizcnn.load("ssdlite320_mobilenet_v3_large@random")
    images = torch.rand(2, 3, 320, 320)
    with torch.no_grad():
        found, plain = model(images), model.network([images[0], images[1]])
    assert [sorted(one) for one in found] == [["boxes", "labels", "scores"]] * 2
    assert all(torch.equal(one[key], other[key]) for one, other in zip(found, plain, strict=True) for key in one)
    assert model.class_name(18) == "dog"
    assert (model.input.mean, model.input.std, model.input.fit) == ((0, 0, 0), (1, 1, 1), "stretch")
    with pytest.raises(ParameterError, match="takes 3 channels: it normalises them itself"):
        vizcnn.load("ssdlite320_mobilenet_v3_large@random", input_channels=1)


@pytest.mark.usefixtures("operators")
def test_detectors_with_a_checkpoint(tmp_path: Path) -> None:
    from torchvision.models import get_model

    options = {"weights": None, "weights_backbone": None, "num_classes": 4}
    network = get_model("ssdlite320_mobilenet_v3_large", **options).eval()
    torch.save({"model": network.state_dict()}, tmp_path / "a.pth")
    model = vizcnn.load(f"ssdlite320_mobilenet_v3_large@{tmp_path}/a.pth")
    assert all(map(torch.equal, model.network.state_dict().values(), network.state_dict().values()))
    assert "inferred 4 classes" in model.notes[0]


def test_detectors_without_compiled_operators_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    list_tasks()
    if hasattr(torch.ops.torchvision, "nms"):
        monkeypatch.setattr(torch.ops, "torchvision", object())
    with pytest.raises(ModelNotFound, match=r"finds boxes, and the compiled operators of this torchvision"):
        vizcnn.load("ssdlite320_mobilenet_v3_large@random")


def test_weights_that_cannot_be_downloaded_are_named() -> None:
    with pytest.raises(WeightsError, match=r"Expected the file lraspp_mobilenet_v3_large-\w+.pth in "):
        vizcnn.load("lraspp_mobilenet_v3_large")
