"""Anything that turns images into numbers can be asked: occlusion and RISE work, all else says why it does not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import picture, small_cnn
from support_networks import open_onnx
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import LayerNotFound, NetworkError, ParameterError, UnsuitableNetwork, VizcnnWarning

SIZE = (12, 12)
CONTRACT: dict[str, Any] = {
    "size": SIZE,
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.4),
    "labels": [*"abcde"],
    "head": "logits",
}

Array = npt.NDArray[np.float32]


def plain() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), **CONTRACT)


@torch.no_grad()
def answer(images: Array) -> Array:
    """What the small network says, as a function from arrays to arrays."""
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    numbers: Array = small_cnn().eval()(torch.from_numpy(images)).numpy()
    return numbers


def answer_tensors(images: torch.Tensor) -> Tensor:
    assert isinstance(images, Tensor)
    out: Tensor = small_cnn().eval()(images)
    return out


class Service:
    """A callable object, as a client of a web service may be."""

    def __call__(self, images: Any) -> list[list[float]]:
        rows: list[list[float]] = answer(images).tolist()
        return rows


FUNCTIONS: dict[str, Any] = {
    "array": answer,
    "array in the other byte order": lambda images: answer(images).astype(">f4"),
    "tensor": answer_tensors,
    "object that returns lists": Service(),
    "lambda": lambda x: answer(x),
    "list of arrays, as of a session's run": lambda x: [answer(x).argmax(1), answer(x)],
    "row for each image": lambda x: [*answer(x)],
    "dictionary": lambda x: {"scores": answer(x), "label": answer(x).argmax(1)},
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("probe", [vizcnn.Occlusion(window=4, stride=3), vizcnn.Rise(masks=20)], ids=lambda p: p.name())
def test_a_function_gets_the_maps_of_the_network_inside_it(function: Any, probe: Any) -> None:
    images = picture(SIZE, count=2)
    for target in (None, "c", "p(c)", lambda raw: raw[:, 1] if isinstance(raw, Tensor) else torch.ones(1)):
        if callable(target) and function is not answer:
            continue
        right = probe(plain(), images, target, progress=False)
        found = probe(vizcnn.Model(function, **CONTRACT), images, target, progress=False)
        np.testing.assert_allclose(found.values, right.values, atol=1e-5)
        np.testing.assert_allclose(found.scores, right.scores, rtol=1e-4)
        assert found.provenance.targets == right.provenance.targets


@pytest.mark.parametrize("images_at_once", ["N", 1])
@pytest.mark.filterwarnings("ignore:small.onnx answers for one image, but not for several")
def test_a_real_session_of_onnxruntime_gives_the_maps_of_the_same_network(
    tmp_path: Path, images_at_once: str | int
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    conv, dense = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)
    for part, seed in ((conv, 0), (dense, 1)):
        generator = torch.Generator().manual_seed(seed)
        for parameter in part.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    session = open_onnx(tmp_path / "small.onnx", conv, dense, images_at_once)

    contract = {**CONTRACT, "size": 32}
    own = vizcnn.Model(lambda x: session.run(None, {"input": x})[0], name="small.onnx", **contract)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
    images = picture((32, 32), count=2)
    for probe in (vizcnn.Occlusion(window=8, stride=8), vizcnn.Rise(masks=50)):
        right = probe(vizcnn.Model(network, **contract), images, progress=False)
        found = probe(own, images, progress=False)
        assert np.abs(right.values).max() > 1e-2
        np.testing.assert_allclose(found.values, right.values, atol=1e-4)
    assert found.provenance.model == "small.onnx"
    assert found.provenance.weights_sha256 == ""
    assert "small.onnx black box" in found.provenance.line()


REFUSING = [
    vizcnn.Saliency(), vizcnn.Cam(), vizcnn.Cam(method="score-cam"), vizcnn.FeatureMaps(), vizcnn.Deconvnet(),
    vizcnn.Dream(), vizcnn.Invert(),
]  # fmt: skip


@pytest.mark.parametrize("probe", REFUSING, ids=lambda probe: type(probe).__name__)
def test_what_looks_inside_says_why_not(probe: Any) -> None:
    with pytest.raises(
        UnsuitableNetwork, match=r"needs layers or gradients, and answer is a black box: .*occlusion or"
    ):
        probe(vizcnn.Model(answer, **CONTRACT), picture(SIZE), progress=False)


@pytest.mark.parametrize("probe", [vizcnn.Layers(), vizcnn.Filters(), vizcnn.Maximize(steps=1)], ids=lambda p: p.name())
def test_probes_of_the_network_alone_say_why_not(probe: Any) -> None:
    with pytest.raises(UnsuitableNetwork, match="needs layers or gradients"):
        probe(vizcnn.Model(answer, **CONTRACT), progress=False)


def test_a_layer_of_a_black_box_is_no_target() -> None:
    with pytest.raises(UnsuitableNetwork, match="'conv' is asked for as a layer, and answer is a black box") as said:
        vizcnn.Occlusion()(vizcnn.Model(answer, **CONTRACT), picture(SIZE), "conv:1", progress=False)
    assert not isinstance(said.value, LayerNotFound)


def test_what_a_function_raises_is_one_line() -> None:
    def failing(_: Array) -> Array:
        raise ConnectionError("no answer\nfrom anybody")

    with pytest.raises(
        NetworkError, match=r"\(1, 3, 12, 12\) of float32: ConnectionError: no answer. Is the file or service"
    ):
        vizcnn.Occlusion()(vizcnn.Model(failing, **CONTRACT), picture(SIZE), progress=False)
    with pytest.raises(NetworkError, match=r"For a tensor write `def ask\(images: torch.Tensor\)`"):
        vizcnn.Occlusion()(vizcnn.Model(lambda x: small_cnn()(x), **CONTRACT), picture(SIZE), progress=False)


@pytest.mark.parametrize("numbers", [None, "cat", [["a"]], [[1.0], [1.0, 2.0]], object()])
def test_what_is_no_numbers_is_refused(numbers: Any) -> None:
    with pytest.raises(NetworkError, match="must return numbers"):
        vizcnn.Occlusion()(vizcnn.Model(lambda _: numbers, **CONTRACT), picture(SIZE), progress=False)


@pytest.mark.parametrize(("network", "said"), [(3, "got int"), (nn.ReLU, "It is a class: make one first")])
def test_what_cannot_be_asked_is_refused(network: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        vizcnn.Model(network, size=SIZE)


def test_a_function_that_is_random_is_refused() -> None:
    with pytest.raises(UnsuitableNetwork, match="it is random"):
        vizcnn.Occlusion()(
            vizcnn.Model(lambda x: answer(x) + np.random.rand(len(x), 1), **CONTRACT), picture(SIZE), progress=False
        )


class Dropping(nn.Module):
    """The small network with a layer that only eval mode makes harmless."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop = small_cnn(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(self.body(x))
        return out


def script() -> Any:
    return torch.jit.script(Dropping())


def export() -> Any:
    dynamic = {"x": {0: torch.export.Dim("n", min=1, max=64)}}
    return torch.export.export(Dropping().eval(), (torch.rand(2, 3, *SIZE),), dynamic_shapes=dynamic)


def quantize() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(Dropping(), {nn.Linear}, torch.qint8)


KINDS: dict[str, Any] = {
    "scripted": (script, 1e-5, "original Python network"),
    "exported program": (export, 1e-5, "original Python network"),
    "exported module": (lambda: export().module(), 1e-5, "original Python network"),
    "quantized": (quantize, 0.15, "before it was quantized"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("make", "near", "remedy"), KINDS.values(), ids=KINDS.keys())
def test_networks_that_hooks_cannot_look_into_are_black_boxes(make: Any, near: float, remedy: str) -> None:
    network, image = make(), picture(SIZE)
    own = vizcnn.Model(network, **CONTRACT)
    assert own.is_black_box
    for probe in (vizcnn.Occlusion(window=4, stride=3), vizcnn.Rise(masks=20)):
        right, found = probe(plain(), image, "c", progress=False), probe(own, image, "c", progress=False)
        np.testing.assert_allclose(found.values, right.values, atol=near * np.abs(right.values).max())
    if isinstance(network, torch.jit.ScriptModule):
        assert network.training  # as it was
    with pytest.raises(UnsuitableNetwork, match=remedy):
        vizcnn.Saliency()(own, image, "c", progress=False)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_network_in_double_precision_gets_doubles() -> None:
    own = vizcnn.Model(script().double(), **CONTRACT)
    found = vizcnn.Occlusion(window=4, stride=3)(own, picture(SIZE), "c", progress=False)
    right = vizcnn.Occlusion(window=4, stride=3)(plain(), picture(SIZE), "c", progress=False)
    np.testing.assert_allclose(found.values, right.values, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_weights_that_can_be_seen_are_in_the_provenance() -> None:
    scripted, plainly = vizcnn.Model(script(), **CONTRACT), vizcnn.Model(Dropping(), **CONTRACT)
    assert scripted.weights_sha256() == plainly.weights_sha256()
    assert vizcnn.Model(quantize(), **CONTRACT).weights_sha256() == ""


def test_an_exported_network_for_one_image_is_asked_one_by_one() -> None:
    fixed = torch.export.export(Dropping().eval(), (torch.rand(1, 3, *SIZE),))
    own, image = vizcnn.Model(fixed, **CONTRACT), picture(SIZE)
    with pytest.warns(VizcnnWarning, match="answers for one image, but not for several at once"):
        found = vizcnn.Occlusion(window=4, stride=3)(own, image, "c", progress=False)
    right = vizcnn.Occlusion(window=4, stride=3)(plain(), image, "c", progress=False)
    np.testing.assert_allclose(found.values, right.values, atol=1e-5)


def test_the_check_says_why_probes_do_not_work() -> None:
    found = vizcnn.check(vizcnn.Model(answer, **CONTRACT))
    columns = found.columns
    verdicts = {row[0]: dict(zip(columns, row, strict=True)) for row in found.rows}
    reason = "it needs layers or gradients, and answer is a black box: a function shows its answers only. Use occlusion"
    assert str(verdicts["cam"]["reason"]).startswith(reason)
    assert verdicts["rise"]["reason"] == ""
