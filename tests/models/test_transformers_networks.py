"""Networks of transformers, from folders. The oracle is transformers' own: its image processor and its forward."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import draw_photo

import vizcnn
from vizcnn.errors import ModelNotFound, ParameterError, WeightsError
from vizcnn.inputs.images import open_photo
from vizcnn.models.outputs import settle_output
from vizcnn.models.sources.processors import find_contract

transformers = pytest.importorskip("transformers")

NAMES = {0: "cat", 1: "dog", 2: "fox"}
NUMBERS = {name: number for number, name in NAMES.items()}


def processor(name: str, **options: Any) -> Any:
    """A processor that needs Pillow alone, as it is called in this version of transformers."""
    return (getattr(transformers, f"{name}Pil", None) or getattr(transformers, name))(**options)


def make_resnet(**options: Any) -> Any:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3, **options
    )
    return transformers.ResNetForImageClassification(config)


def make_convnext() -> Any:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
    return transformers.ConvNextForImageClassification(config)


def make_vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config)


def make_segformer() -> Any:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        num_labels=4,
    )
    return transformers.SegformerForSemanticSegmentation(config)


def save(folder: Path, network: Any, processor: Any = None) -> str:
    network.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture
def resnet(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = make_resnet(id2label=NAMES, label2id=NUMBERS)
    return save(tmp_path / "resnet", network, processor("ConvNextImageProcessor", size={"shortest_edge": 32}))


@pytest.mark.parametrize(
    ("make", "prepare"),
    [
        (make_resnet, lambda: processor("ConvNextImageProcessor", size={"shortest_edge": 32})),
        (make_convnext, lambda: processor("ConvNextImageProcessor", size={"shortest_edge": 384})),
        (make_vit, lambda: processor("ViTImageProcessor", size={"height": 32, "width": 32})),
        (make_segformer, lambda: processor("SegformerImageProcessor", size={"height": 64, "width": 64})),
    ],
)
def test_a_photograph_gets_the_answer_that_transformers_gives(
    tmp_path: Path, make: Callable[[], Any], prepare: Callable[[], Any]
) -> None:
    torch.manual_seed(0)
    network, photo = make().eval(), draw_photo(90, 120)
    model = vizcnn.load(save(tmp_path / "it", network, prepare()))
    inputs = model.prepared(open_photo(photo))[0][None]
    theirs = torch.as_tensor(prepare()(images=photo, return_tensors="np")["pixel_values"])
    assert inputs.shape == theirs.shape
    assert float((model.normalised(inputs) - theirs).abs().mean()) < 0.03  # in units of std
    with torch.no_grad():
        wanted = network(model.normalised(inputs)).logits
        found = settle_output(model(inputs), model.output, 1)
    torch.testing.assert_close(found, wanted)
    assert (model.head, model.notes, model.labels) == ("logits", (), None)  # LABEL_0 is no name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
        ("EfficientNetImageProcessor", {}),  # normalises twice
        ("EfficientNetImageProcessor", {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False}),
        ("MobileNetV2ImageProcessor", {}),
        ("PoolFormerImageProcessor", {}),
        ("LevitImageProcessor", {}),
        ("ViTImageProcessor", {"do_rescale": False, "image_mean": [124, 117, 104], "image_std": [58, 57, 57]}),
        ("ViTImageProcessor", {"do_normalize": False}),
        ("CLIPImageProcessor", {}),
    ],
)
def test_the_contract_of_an_image_processor_does_what_it_does(name: str, options: dict[str, Any]) -> None:
    one = processor(name, **options)
    contract, said = find_contract(one, "hf:x", None)
    model = vizcnn.Model(
        torch.nn.Identity(),
        size=contract.size,
        mean=contract.mean,
        std=contract.std,
        fit=contract.fit,
        resize=contract.resize,
        interpolation=contract.interpolation,
    )
    photo = draw_photo(480, 640)
    ours = model(model.prepared(open_photo(photo))[0][None])
    theirs = torch.as_tensor(one(images=photo, return_tensors="np")["pixel_values"])
    assert said == ()
    assert float((ours - theirs).abs().mean()) < 0.02 * float(theirs.max() - theirs.min())


def test_what_the_contract_cannot_say_is_refused_or_said() -> None:
    with pytest.raises(ParameterError, match="hf:x: its image processor puts the colours in another order than RGB"):
        find_contract(processor("MobileViTImageProcessor"), "hf:x", None)
    contract, said = find_contract(processor("MobileNetV2ImageProcessor", do_center_crop=False), "hf:x", None)
    assert contract.size == (256, 256)
    assert said == (
        "hf:x: its image processor gives 341 x 256 px for a photograph of 4:3, here its centre of 256 x 256 px is "
        "taken",
    )
    with pytest.raises(ParameterError, match="leaves images as large as they are. Give --input-size"):
        find_contract(processor("ViTImageProcessor", do_resize=False), "hf:x", None)


def test_labels_and_heads_come_from_the_configuration(resnet: str, tmp_path: Path) -> None:
    model = vizcnn.load(resnet)
    assert model.labels == ("cat", "dog", "fox")
    assert model.name == resnet
    many = make_resnet(problem_type="multi_label_classification")
    spec = save(tmp_path / "many", many, processor("ConvNextImageProcessor", size={"shortest_edge": 32}))
    assert vizcnn.load(spec).head == "sigmoid-logits"


def test_probes_work_on_them(resnet: str, tmp_path: Path) -> None:
    model = vizcnn.load(resnet)
    draw_photo(90, 120).save(tmp_path / "photo.png")
    found = vizcnn.Occlusion(window=16, stride=16)(model, tmp_path / "photo.png", target="dog", progress=False)
    assert found.values.shape == (1, 1, 32, 32)
    assert vizcnn.Cam()(model, tmp_path / "photo.png", target="dog").values.max() > 0


def test_folders_without_a_processor_say_which_options_are_needed(tmp_path: Path) -> None:
    spec = save(tmp_path / "bare", make_vit())
    with pytest.raises(ParameterError, match=r"without an image processor .* Give --input-size 224, --mean and --std"):
        vizcnn.load(spec)
    model = vizcnn.load(spec, input_size=32, mean=[0.5] * 3, std=[0.25] * 3)
    assert (model.input.size, model.input.mean, model.notes) == ((32, 32), (0.5, 0.5, 0.5), ())
    assert vizcnn.load(spec, input_size=32).notes == (
        f"{spec}: pixels in [0, 1] go in as they are: nothing says mean and std",
    )


def test_weights_that_would_be_random_are_refused_and_what_is_left_over_is_said(resnet: str) -> None:
    file = Path(resnet[3:]) / "model.safetensors"
    state = load_file(file)
    save_file({**state, "extra.weight": torch.zeros(1)}, file, metadata={"format": "pt"})
    assert vizcnn.load(resnet).notes == (f"{resnet}: left over of the file of weights: extra.weight",)
    headless = {name: value for name, value in state.items() if not name.startswith("classifier")}
    save_file(headless, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks classifier.1.bias, classifier.1.weight, which would be random"):
        vizcnn.load(resnet)
    file.unlink()
    with pytest.raises(WeightsError, match="no weights that fit are in this folder"):
        vizcnn.load(resnet)


def test_random_weights_and_those_of_other_files(resnet: str, tmp_path: Path) -> None:
    one, two = (vizcnn.load(f"{resnet}@random", input_channels=1, classes=2, input_size=64) for _ in range(2))
    assert one.weights_sha256() == two.weights_sha256()
    assert settle_output(one(torch.rand(2, 1, 64, 64)), one.output, 2).shape == (2, 2)
    shutil.copy(Path(resnet[3:]) / "model.safetensors", tmp_path / "mine.safetensors")
    model = vizcnn.load(f"{resnet}@{tmp_path}/mine.safetensors")
    assert model.weights_sha256() == vizcnn.load(resnet).weights_sha256()
    with pytest.raises(ParameterError, match="published weights of hf:.* are for 3 channels and 3 classes"):
        vizcnn.load(resnet, classes=5)
    with pytest.raises(WeightsError, match="has no weights tagged 'main'. After the @ stands a file"):
        vizcnn.load(f"{resnet}@main")


def test_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    spec = save(tmp_path / "half", make_vit().half(), processor("ViTImageProcessor", size={"height": 32, "width": 32}))
    assert vizcnn.load(spec).dtype == torch.float32


def test_folders_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no config.json in this folder"):
        vizcnn.load(f"hf:{tmp_path}")
    with pytest.raises(ModelNotFound, match=r"hf:./nothing: no folder ./nothing. Name a folder with a config.json"):
        vizcnn.load("hf:./nothing")
    with pytest.raises(ModelNotFound, match="https://a.b/c is an address, and only files are read here"):
        vizcnn.load("hf:https://a.b/c")
    config = tmp_path / "config.json"
    config.write_text("{")
    with pytest.raises(ModelNotFound, match="its config.json is no JSON"):
        vizcnn.load(f"hf:{tmp_path}")
    config.write_text(json.dumps({"architecture": "resnet18", "num_classes": 3}))
    with pytest.raises(ModelNotFound, match="is a folder of timm. Load it as timm:resnet18@.*model.safetensors"):
        vizcnn.load(f"hf:{tmp_path}")
    make_vit().vit.save_pretrained(tmp_path / "body")
    with pytest.raises(ModelNotFound, match="holds a ViTModel, and only image classifiers and networks for semantic"):
        vizcnn.load(f"hf:{tmp_path}/body")


@pytest.mark.parametrize("options", [{}, {"input_size": 64}])
def test_a_damaged_image_processor_is_not_taken_for_none(resnet: str, options: dict[str, Any]) -> None:
    """Else the network would see pixels that are not normalised."""
    (Path(resnet[3:]) / "preprocessor_config.json").write_text("{")
    with pytest.raises(
        ParameterError, match=r"its image processor \(preprocessor_config.json\) cannot be read: .*Mend"
    ):
        vizcnn.load(resnet, **options)


def test_classes_with_gaps_have_no_names(resnet: str) -> None:
    config = Path(resnet[3:]) / "config.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps({**facts, "id2label": {"1": "cat", "2": "dog", "3": "fox"}}))
    model = vizcnn.load(resnet)
    assert model.labels is None
    assert model.notes == (
        f"{resnet}: id2label does not number its classes from 0 without gaps, so that they have no names",
    )
    named = vizcnn.load(resnet, class_names=["cat", "dog", "fox"])
    assert (named.labels, named.notes) == (("cat", "dog", "fox"), ())


def test_names_that_cannot_be_fetched(offline: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        vizcnn.load("hf:nobody/nothing")
    message = str(caught.value)
    assert message.startswith(f"hf:nobody/nothing: config.json of nobody/nothing is not in the hub's cache {offline}")
    assert "Put config.json, preprocessor_config.json and model.safetensors into a folder, and load it as hf" in message


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelNotFound, match=r"hf:a/b needs transformers .*pip install 'vizcnn\[hf\]'"):
        vizcnn.load("hf:a/b")
