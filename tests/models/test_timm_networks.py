"""Networks of timm by their names. The oracle of the preprocessing is timm's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import draw_photo

import vizcnn
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError
from vizcnn.inputs.images import open_photo
from vizcnn.models._torchvision import import_models
from vizcnn.models.sources import timm as source

import_models()  # timm's own import fails beside a torchvision without its compiled operators
timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",  # the centre is cut out of more
        "resnet26d",  # bicubic
        "convnext_atto",
        "test_vit",
        "convnext_atto.d2_in1k",
        "edgenext_xx_small",
        "efficientnet_lite0",
        "vit_base_patch32_siglip_256",  # squashed, and without classes
    ],
)
def test_photographs_become_inputs_as_timm_makes_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = timm.models.get_pretrained_cfg(name)
    network = torch.nn.Identity()
    network.pretrained_cfg, network.num_classes = facts.to_dict(), facts.num_classes
    monkeypatch.setattr(source, "_build", lambda *_, **__: network)  # its weights play no part
    model = vizcnn.load(f"timm:{name}@random")
    own = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=facts.to_dict()))
    photo = draw_photo(300, 400)
    ours, theirs = model.normalised(model.prepared(open_photo(photo))[0][None])[0], own(photo)  # (3, H, W)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().mean()) < 0.02  # in units of std; Pillow rounds to 8 bits on the way
    assert model.notes == ()


def test_what_timm_does_otherwise_is_said() -> None:
    data = {"crop_pct": 0.9, "crop_mode": "squash"}
    assert source._find_fit(data, (64, 64)) == (
        {"fit": "stretch"},
        ["timm then cuts off the border and leaves 90% of each side, here nothing is cut"],
    )
    assert "between borders" in source._find_fit({**data, "crop_mode": "border"}, (64, 64))[1][0]
    assert source._find_fit({"crop_pct": 0.875, "crop_mode": "center"}, (64, 64)) == ({"resize": 73}, [])


def test_labels_are_imagenets_where_it_has_as_many_classes() -> None:
    model = vizcnn.load("timm:test_resnet@random")
    assert (model.class_name(281), model.class_name(0)) == ("tabby", "tench")
    assert model.class_index("maillot") == 638
    assert model.class_name(639) == "maillot, tank suit"  # since there are two maillots
    assert vizcnn.load("timm:test_resnet@random", classes=7).labels is None


def test_random_networks_are_always_the_same_and_built_for_what_is_given() -> None:
    first = vizcnn.load("timm:test_vit@random", input_size=32, input_channels=1, classes=5)
    again = vizcnn.load("timm:test_vit@random", input_size=32, input_channels=1, classes=5)
    assert first.weights_sha256() == again.weights_sha256()
    assert first(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    assert (first.name, first.head) == ("timm:test_vit@random", "logits")


def test_checkpoints_tell_classes_and_channels(tmp_path: Path) -> None:
    network = timm.create_model("test_convnext", num_classes=3, in_chans=1).eval()
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.ckpt")
    model = vizcnn.load(f"timm:test_convnext@{tmp_path}/best.ckpt", mean=[0.5], std=[0.25])
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model(images), network((images - 0.5) / 0.25))
    (note,) = model.notes
    assert "without the prefix 'model.'" in note
    assert "inferred 3 classes and 1 input channel" in note


@pytest.mark.usefixtures("offline")
def test_names_that_are_not_there() -> None:
    with pytest.raises(ModelNotFound, match="timm .* has no network named 'resnet26dd'. Did you mean 'resnet26d'?"):
        vizcnn.load("timm:resnet26dd")
    with pytest.raises(ModelNotFound, match="no weights tagged 'a1_in1' for resnet18. Did you mean 'a1_in1k'?"):
        vizcnn.load("timm:resnet18.a1_in1")
    with pytest.raises(WeightsError, match="timm writes the tag behind a dot, as in timm:resnet50.a1_in1k"):
        vizcnn.load("timm:resnet18@a1_in1k")
    unpublished = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(WeightsError, match=f"timm has no weights for {unpublished}. Load yours as timm:{unpublished}"):
        vizcnn.load(f"timm:{unpublished}")
    with pytest.raises(ParameterError, match="published weights of timm:resnet18 are for 3 channels and 1000 classes"):
        vizcnn.load("timm:resnet18", classes=3)


def test_weights_that_cannot_be_fetched(offline: Path) -> None:
    for spec in ("timm:resnet18", "timm:resnet18.a1_in1k"):
        with pytest.raises(WeightsError) as caught:
            vizcnn.load(spec)
        message = str(caught.value)
        assert f"(model.safetensors of timm/resnet18.a1_in1k) are not in the hub's cache {offline}" in message
        assert f"load it as {spec}@FILE; or use {spec}@random" in message
        assert "cannot be downloaded (there is no connection to the hub)" in message
    with pytest.raises(WeightsError, match="hf:timm/resnet18.a1_in1k: config.json and model.safetensors .* are not in"):
        vizcnn.load("hf:timm/resnet18.a1_in1k")


def test_weights_in_the_hubs_cache_are_used(offline: Path) -> None:
    """Laid out as the hub's client does: a snapshot of a commit, and the branch that points to it."""
    from safetensors.torch import save_file

    network, facts = timm.create_model("test_resnet"), timm.models.get_pretrained_cfg("test_resnet")
    folder = offline / f"models--{facts.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(network.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    model = vizcnn.load("timm:test_resnet")
    assert model.name == f"timm:test_resnet.{facts.tag}"
    assert all(map(torch.equal, model.network.state_dict().values(), network.state_dict().values()))


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelNotFound, match=r"timm:resnet18 needs timm .*pip install 'vizcnn\[timm\]'"):
        vizcnn.load("timm:resnet18")


@pytest.mark.parametrize("source", ["timm", "hf"])
def test_a_fresh_process_imports_what_it_needs_in_the_right_order(source: str, tmp_path: Path) -> None:
    """Beside a torchvision without its compiled operators, timm and transformers fail if they come first."""
    if source == "hf":
        transformers = pytest.importorskip("transformers")
        settings = transformers.ResNetConfig(num_labels=2, depths=[1, 1], hidden_sizes=[8, 8], embedding_size=8)
        transformers.ResNetForImageClassification(settings).save_pretrained(tmp_path / "own")
    spec = "timm:test_resnet@random" if source == "timm" else f"hf:{tmp_path / 'own'}"
    code = f"import vizcnn; print(vizcnn.load({spec!r}, input_size=32, mean=[0.5] * 3, std=[1] * 3).input.size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "(32, 32)\n", done.stderr
