"""The table of networks: the rows, what `vizcnn check` says of each, and the page that shows it.

    python tests/support_networks.py      # writes docs/networks.md anew

A row makes a small network with random weights, always the same, and knows in plain torch what a probe explains of it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT, enliven, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import VizcnnError
from vizcnn.models._torchvision import import_models
from vizcnn.probing import registry
from vizcnn.results.check import FAILS, UNKNOWN, WITH_TARGET, WORKS

PAGE = ROOT / "docs" / "networks.md"
SAMPLE = "sample:grace_hopper"
MEAN, STD = (0.45, 0.4, 0.5), (0.25, 0.3, 0.2)


@dataclass(frozen=True)
class Row:
    """A network of the table.

    make: the Model, given an empty folder. outputs: from the network and normalised images to the numbers of its
    classes, (N, K), in plain torch. explain: from the network, the normalised image that is explained and others to the
    explained numbers (N,), where that is not one of `outputs`. needs: packages, or torch's operators for boxes, without
    which the row is skipped. channels_last: whether layers may have their channels last. precision: how near numbers
    are, as a share of the largest.
    """

    make: Callable[[Path], vizcnn.Model]
    outputs: Callable[[Any, Tensor], Tensor] = lambda network, x: network(x)
    explain: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    needs: tuple[str, ...] = ()
    channels_last: bool = False
    precision: float = 1e-4


def build(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A network in eval mode, always with the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def wrap(network: Any, size: int | tuple[int, int] = 32, **options: Any) -> vizcnn.Model:
    channels = options.get("channels", 3)
    return vizcnn.Model(network, size=size, mean=MEAN[:channels], std=STD[:channels], **options)


def _make_checkpoint(prefix: str, classes: int, **beside: Any) -> Callable[[Path], vizcnn.Model]:
    """A checkpoint of a resnet18 with so many classes, whose keys begin with a prefix, as wrappers of networks save."""

    def make(folder: Path) -> vizcnn.Model:
        from torchvision.models import resnet18

        state = build(lambda: resnet18(num_classes=classes)).state_dict()
        named = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save({**beside, "state_dict": named} if beside else named, folder / "own.ckpt")
        loaded = vizcnn.load(f"resnet18@{folder / 'own.ckpt'}", input_size=64)
        assert all(torch.equal(loaded.network.state_dict()[key], value) for key, value in state.items())
        return loaded

    return make


def _load(spec: str, size: int) -> Callable[[Path], vizcnn.Model]:
    return lambda _: vizcnn.load(spec, input_size=size)


def _make_timm(name: str, size: int, **options: Any) -> Callable[[Path], vizcnn.Model]:
    def make(_: Path) -> vizcnn.Model:
        import_models()
        import timm

        return wrap(build(lambda: timm.create_model(name, num_classes=7, **options)), size, name=name)

    return make


def _make_hf(kind: str, config: str, **options: Any) -> Callable[[Path], vizcnn.Model]:
    def make(_: Path) -> vizcnn.Model:
        import_models()
        import transformers

        settings = getattr(transformers, config)(num_labels=5, **options)
        return wrap(build(lambda: getattr(transformers, kind)(settings)), name=kind)

    return make


def open_onnx(file: Path, conv: nn.Module, dense: nn.Module, images: str | int = "N") -> Any:
    """A session of onnxruntime on a new file: a convolution, ReLU, the mean over all places and a dense layer of five
    classes, of images (N, 3, 32, 32), or of so many at once."""
    onnx: Any = import_module("onnx")
    onnxruntime: Any = import_module("onnxruntime")
    weights = dict(zip("wbvc", [*conv.parameters(), *dense.parameters()], strict=True))
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        make.make_node("Conv", ["input", "w", "b"], ["maps"], pads=[1, 1, 1, 1]),
        make.make_node("Relu", ["maps"], ["open"]),
        make.make_node("ReduceMean", ["open"], ["pooled"], axes=[2, 3], keepdims=0),
        make.make_node("Gemm", ["pooled", "v", "c"], ["logits"], transB=1),
    ]
    shapes: dict[str, list[str | int | None]] = {"input": [images, 3, 32, 32], "logits": [images, 5]}
    ends = [make.make_tensor_value_info(name, floats, shape) for name, shape in shapes.items()]
    held = [onnx.numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()]
    graph = make.make_graph(nodes, "small", ends[:1], ends[1:], held)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8), file)
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def _make_onnx(folder: Path) -> vizcnn.Model:
    """A file that a session of onnxruntime answers from."""
    conv, dense = build(lambda: nn.Conv2d(3, 4, 3, padding=1)), build(lambda: nn.Linear(4, 5))
    session = open_onnx(folder / "small.onnx", conv, dense)
    return wrap(lambda x: session.run(None, {"input": x})[0], name="small.onnx")


def _run_onnx(_: Any, x: Tensor) -> Tensor:
    """What the file computes, in torch."""
    conv, dense = build(lambda: nn.Conv2d(3, 4, 3, padding=1)), build(lambda: nn.Linear(4, 5))
    logits: Tensor = dense(conv(x).relu().mean((2, 3)))
    return logits


def _make_lively() -> nn.Module:
    """The small network with larger weights, whose answers to covered images differ by more than 8 bits round away."""
    network = small_cnn()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data *= 4
    return network


class UNet(nn.Module):
    """Two scales with a shortcut, and a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(x)  # (N, 8, H, W)
        logits: Tensor = self.head(torch.cat([high, self.up(self.deep(high))], 1))  # (N, 4, H, W)
        return logits


def _average(maps: Tensor) -> Tensor:
    """The number of each class of a segmentation, (N, K): its mean over all pixels."""
    return maps.mean((2, 3))


def _explain_area(read: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """The number that explains a segmentation: of the class of most pixels, its mean over these.

    read: the maps (N, K, H, W) for normalised images."""

    def explain(network: Any, image: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            predicted = read(network, image)[0].argmax(0)  # (H, W)
        best = int(predicted.flatten().bincount().argmax())
        return read(network, images)[:, best][:, predicted == best].mean(1)

    return explain


def _explain_box(network: Any, image: Tensor, images: Tensor) -> Tensor:
    """The number that explains a detector: how well a box of the class of its surest one covers that one, times its
    confidence, at most."""
    from torchvision.ops import box_iou

    best = network([*image])[0]
    label, box = best["labels"][best["scores"].argmax()], best["boxes"][best["scores"].argmax()][None]
    found = []
    for each in network([*images]):
        own = each["labels"] == label
        found.append(max((box_iou(box, each["boxes"][own])[0] * each["scores"][own]).tolist(), default=0.0))
    return torch.tensor(found)


def _add_sigmoids(_: Path) -> vizcnn.Model:
    return wrap(nn.Sequential(small_cnn(), nn.Sigmoid()), labels=list("abcde"), name="sigmoids")


def _make_lively_torchvision(room: str, name: str, size: int) -> Callable[[Path], vizcnn.Model]:
    """One of torchvision's networks for three classes, with random weights that let an image through: with plain ones
    all images would get one answer."""

    def make(_: Path) -> vizcnn.Model:
        import_models()
        maker = getattr(import_module(f"torchvision.models.{room}"), name)
        network = build(lambda: maker(weights=None, weights_backbone=None, num_classes=3))
        model = vizcnn.Model(network, size=size, name=name.partition("_")[0])
        enliven(network, list_images(Visit(model, {})))
        network.eval()
        return model

    return make


def _read_segmenter(network: Any, x: Tensor) -> Tensor:
    maps: Tensor = network(x)["out"]
    return maps


_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
_CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}

ROWS: dict[str, Row] = {
    "tiny": Row(lambda _: vizcnn.load("tiny")),
    "resnet18": Row(_load("resnet18@random", 64)),
    "a Lightning checkpoint, 3 classes": Row(
        _make_checkpoint("model.", 3, epoch=4, hyper_parameters={"lr": 0.1}, **{"pytorch-lightning_version": "2.4"})
    ),
    "a compiled checkpoint": Row(_make_checkpoint("_orig_mod.", 4)),
    "timm convnext_atto": Row(_load("timm:convnext_atto@random", 64), needs=("timm",)),
    "timm efficientnet_b0": Row(_load("timm:efficientnet_b0@random", 64), needs=("timm",)),
    "timm resnet26d": Row(_load("timm:resnet26d@random", 64), needs=("timm",)),
    "timm vit_tiny": Row(_make_timm("vit_tiny_patch16_224", 64, img_size=64), needs=("timm",), channels_last=True),
    "timm swin_tiny": Row(
        _make_timm("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=2), needs=("timm",), channels_last=True
    ),
    "transformers ResNet": Row(
        _make_hf("ResNetForImageClassification", "ResNetConfig", **_RESNET),
        outputs=lambda network, x: network(x).logits,
        needs=("transformers",),
    ),
    "transformers ConvNeXt": Row(
        _make_hf("ConvNextForImageClassification", "ConvNextConfig", **_CONVNEXT),
        outputs=lambda network, x: network(x).logits,
        needs=("transformers",),
        channels_last=True,
    ),
    "segmentation: lraspp": Row(
        _make_lively_torchvision("segmentation", "lraspp_mobilenet_v3_large", 64),
        outputs=lambda network, x: _average(_read_segmenter(network, x)),
        explain=_explain_area(_read_segmenter),
    ),
    "segmentation: U-Net": Row(
        lambda _: wrap(build(UNet), name="unet"),
        outputs=lambda network, x: _average(network(x)),
        explain=_explain_area(lambda network, x: network(x)),
    ),
    "detection: ssdlite": Row(
        _make_lively_torchvision("detection", "ssdlite320_mobilenet_v3_large", 96),
        explain=_explain_box,
        needs=("torchvision::nms",),
    ),
    "many sigmoids": Row(_add_sigmoids),
    "one logit": Row(lambda _: wrap(small_cnn(classes=1), name="one-logit")),
    "one logit, two classes": Row(
        lambda _: wrap(small_cnn(classes=1), name="two-classes", labels=["no", "yes"]),
        outputs=lambda network, x: network(x) * x.new_tensor([1, -1]),  # number 0 is the logit itself
    ),
    "float16": Row(lambda _: wrap(small_cnn().half(), name="half"), precision=0.02),
    "bfloat16": Row(lambda _: wrap(_make_lively().bfloat16(), name="brain"), precision=0.1),
    "float64": Row(lambda _: wrap(small_cnn().double(), name="double")),
    "DataParallel": Row(lambda _: wrap(nn.DataParallel(small_cnn()), name="parallel")),
    "torch.compile": Row(lambda _: wrap(torch.compile(small_cnn(), backend="eager"), name="compiled")),
    "an ONNX session": Row(_make_onnx, _run_onnx, needs=("onnx", "onnxruntime")),
    "grey, 512 px": Row(lambda _: wrap(small_cnn(channels=1), 512, channels=1, name="grey")),
    "five channels": Row(lambda _: vizcnn.Model(small_cnn(channels=5), size=32, channels=5, name="five")),
}


def is_there(need: str) -> bool:
    """Whether a package is installed, or torch has an operator, SPACE::NAME."""
    space, colons, name = need.partition("::")
    if not colons:
        return find_spec(need) is not None
    import_models()
    return hasattr(getattr(torch.ops, space), name)


def list_rows() -> list[str]:
    """The rows that can be made here."""
    return [name for name, row in ROWS.items() if all(map(is_there, row.needs))]


@dataclass(frozen=True)
class Visit:
    """A row's Model with what `vizcnn check` says of it. verdicts: by the name of a probe the cells of its row."""

    model: vizcnn.Model
    verdicts: Mapping[str, Mapping[str, str]]

    def photo(self) -> Any:
        """What check has looked at, as a probe takes it."""
        return SAMPLE if self.model.input.channels in (1, 3) else self.image()[0]

    def image(self) -> Tensor:
        """The same as an input (1, C, H, W)."""
        if self.model.input.channels in (1, 3):
            return self.model.prepared(vizcnn.open_photo(SAMPLE))[0][None]
        shape = (1, self.model.input.channels, *self.model.input.size)
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.model.device, self.model.dtype)


@cache
def visit(name: str) -> Visit:
    with tempfile.TemporaryDirectory() as folder:
        return ask(ROWS[name].make(Path(folder)))


def ask(model: vizcnn.Model) -> Visit:
    found = vizcnn.check(model)
    return Visit(model, {str(row[0]): dict(zip(found.columns, map(str, row), strict=True)) for row in found.rows})


FEW: dict[str, Mapping[str, Any]] = {
    "dream": {"steps": 1, "octaves": 1, "size": 48},
    "embed": {"features": True},
    "feature-maps": {"channels": 3},
    "invert": {"steps": 2},
    "maximize": {"steps": 2},
    "rise": {"masks": 12, "grid": 3},
    "style": {"steps": 1, "size": 56},
    "top-images": {"count": 2},
}
"""Options with which a probe answers soon. What it needs of a network is the same."""


def call(name: str, seen: Visit, target: str | None) -> Any:
    """The probe's answer on the image that the check has seen, or on four for a probe of data sets."""
    half = tuple(-(-side // 2) for side in seen.model.input.size)
    more = {"window": half, "stride": half, "fill": "mean", "engine": "plain"} if name == "occlusion" else {}
    probe = registry.get(name)(**FEW.get(name, {}), **more)
    asked: dict[str, Any] = {"progress": False} | ({"target": target} if target else {})
    if probe.streams:
        return probe(seen.model, list_images(seen), **asked)
    return probe(seen.model, seen.photo(), **asked) if probe.needs_images else probe(seen.model, **asked)


def list_images(seen: Visit) -> Tensor:
    """A small data set, (4, C, H, W)."""
    image = seen.image()
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(5)).to(image)
    return torch.cat([image, image.flip(-1), noise, image / 2])


def hold_to_verdict(probe: str, seen: Visit) -> Any:
    """Run a probe as the check says it works, and return its result; where the check says that it does not work, or not
    without a target, see that it raises the same reason."""
    verdict = seen.verdicts[probe]
    if verdict["works"] != WORKS:
        with pytest.raises(VizcnnError) as refusal:
            call(probe, seen, (verdict["target"] or None) if verdict["works"] == FAILS else None)
        assert_same_reason(verdict["reason"], str(refusal.value))
    return None if verdict["works"] == FAILS else call(probe, seen, verdict["target"] or None)


def assert_same_reason(said: str, raised: str) -> None:
    """The same sentences, but for numbers, which are those of other pictures, and for where it happened."""
    claim, error = (re.sub(r"\[[^]]*\]|-?\d[\d.]*(e-?\d+)?", "#", text) for text in (said, raised))
    assert claim in error or claim.split(": ")[-1] in error


SHORT = {
    "is a black box": "black box",
    "is defined for ReLU only": "not only ReLUs",
    "has no ReLU": "no ReLU",
    "pools with": "adaptive max-pooling",
    "with pictures of its own size only": "one size only",
    "fails on images": "one size only",
    "no layer of .* gives": "no maps",
    "and here is none": "boxes in images only",
    "that layer would not show": "maps before the tokens only",
    "has no convolution": "no convolution",
    "is not active": "unit not active",
    "zero everywhere": "map is zero",
    "no gradient": "no gradient",
    "whose style is taken": "needs `like`",
    "cannot be followed": "not followed",
    "no sum of products": "no sum of products",
    "arithmetic is of one unit": "no single unit",
}
"""From what a reason says to what the page says of it."""


def shorten(reason: str) -> str:
    """A reason in a few words. Raises KeyError for one that the page has no words for yet."""
    for pattern, short in SHORT.items():
        if re.search(pattern, reason):
            return short
    raise KeyError(f"put words for this reason into SHORT: {reason}")


def draw_cell(verdict: Mapping[str, str]) -> str:
    """What the page says of a probe on a network."""
    words = {WORKS: "yes", WITH_TARGET: f"`-t {verdict['target']}`", UNKNOWN: "?"}
    return words[verdict["works"]] if verdict["works"] != FAILS else shorten(verdict["reason"])


def draw_line(name: str) -> str:
    verdicts = visit(name).verdicts
    return "| " + " | ".join([name, *(draw_cell(verdicts[probe]) for probe in list_probes())]) + " |"


def list_probes() -> list[str]:
    """Our own probes, the columns of the page."""
    return [name for name in registry.list_names() if registry.get(name).__module__.startswith("vizcnn.")]


def draw_page() -> Iterator[str]:
    yield "# Which probes work on which networks"
    yield ""
    yield "What `vizcnn check` says of small networks with random weights. Tests compare it with what each probe then"
    yield "does: `yes` is an answer, and where the probe gives numbers, the right ones; `-t X` is one with that target;"
    yield "anything else is why it refuses, in short. `vizcnn check MODEL` says the same of yours, with the remedy."
    yield "The page is written by `python tests/support_networks.py`, and a test fails where it is out of date."
    yield ""
    yield "| network | " + " | ".join(list_probes()) + " |"
    yield "|---" * (len(list_probes()) + 1) + "|"
    yield from map(draw_line, list_rows())


if __name__ == "__main__":
    PAGE.write_text("\n".join(draw_page()) + "\n", encoding="utf-8")
