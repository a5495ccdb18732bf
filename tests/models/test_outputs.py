"""What a network returns, in whatever structure, comes down to one tensor, or to a reason why there is none."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support import picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models.outputs import list_tensors, settle_output

SIZE = (12, 12)


@dataclass
class Output:
    logits: Tensor
    hidden: Any = None


Named = namedtuple("Named", "logits names")


class Returning(nn.Module):
    """The small network, which returns its logits (N, 5) in some form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.form = small_cnn(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.body(x))


def model(form: Callable[[Tensor], Any], **said: Any) -> vizcnn.Model:
    return vizcnn.Model(Returning(form), size=SIZE, **said)


ONE = {
    "tuple with integers": lambda y: (y, y.argmax(1)),
    "list": lambda y: [y],
    "dictionary": lambda y: {"out": y, "loss": y.mean()},
    "dataclass": lambda y: Output(y),
    "named tuple": lambda y: Named(y, ["a"]),
    "nested": lambda y: {"heads": [{"logits": y}], "count": 5},
    "squeezed": lambda y: y.squeeze(),
    "twice the same tensor": lambda y: (y, y),
    "features of another shape beside": lambda y: OrderedDict(logits=y, tokens=y[:, None].expand(-1, 7, -1)),
}

SEVERAL: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "key": (lambda y: {"out": y, "aux": 2 * y}, "out"),
    "key inside": (lambda y: {"main": {"out": y, "loss": y.mean()}, "aux": {"out": 2 * y}}, "main"),
    "path": (lambda y: {"a": [2 * y, y]}, "a.1"),
    "index": (lambda y: (2 * y, y), 1),
    "index from the end": (lambda y: (2 * y, y), -1),
    "field": (lambda y: Output(y, 2 * y), "logits"),
    "function": (lambda y: (2 * y, 3 * y), lambda raw: raw[1] - raw[0]),
}


@pytest.mark.parametrize("form", ONE.values(), ids=ONE.keys())
def test_the_only_tensor_that_can_be_the_output_is_the_output(form: Callable[[Tensor], Any]) -> None:
    image = picture(SIZE)
    for probe in (vizcnn.Saliency(sign="signed"), vizcnn.Occlusion(window=4), vizcnn.Rise(masks=20)):
        right, found = probe(model(lambda y: y), image, progress=False), probe(model(form), image, progress=False)
        np.testing.assert_allclose(found.values, right.values, atol=1e-6)
        assert found.provenance.targets == right.provenance.targets  # the same class is predicted


@pytest.mark.parametrize(("form", "output"), SEVERAL.values(), ids=SEVERAL.keys())
def test_of_several_the_model_says_which(form: Callable[[Tensor], Any], output: Any) -> None:
    image, probe = picture(SIZE), vizcnn.Saliency(sign="signed")
    with pytest.raises(TargetError):
        probe(model(form), image, 2, progress=False)
    right = probe(model(lambda y: y), image, 2, progress=False).values
    np.testing.assert_allclose(probe(model(form, output=output), image, 2, progress=False).values, right, atol=1e-6)


def test_of_several_none_is_preferred_and_the_error_lists_them() -> None:
    two = model(lambda y: {"out": y, "aux": 2 * y})
    for target in (None, 2):
        with pytest.raises(TargetError, match=r"several .*: out \(1, 5\), aux \(1, 5\). Give a target .*output="):
            vizcnn.Saliency()(two, picture(SIZE), target, progress=False)


def test_a_wrong_key_is_answered_with_what_there_is() -> None:
    two = model(lambda y: {"logits": y, "aux": 2 * y}, output="logit")
    with pytest.raises(TargetError, match=r"'logit'.* dict with logits \(1, 5\), aux \(1, 5\). Did you mean 'logits'"):
        vizcnn.Saliency()(two, picture(SIZE), progress=False)


@pytest.mark.parametrize("output", [True, 1.5, ["out"]])
def test_what_is_no_key_index_or_function_is_refused(output: Any) -> None:
    with pytest.raises(ParameterError, match="output is a key, an index or a function"):
        model(lambda y: y, output=output)


def test_what_the_function_raises_is_one_line() -> None:
    own = model(lambda y: {"out": y}, output=lambda raw: raw["logits"])
    with pytest.raises(TargetError, match=r"output= fails on dict with out \(1, 5\): KeyError: 'logits'"):
        vizcnn.Saliency()(own, picture(SIZE), progress=False)


def test_a_function_as_target_gets_what_the_network_returns() -> None:
    image, probe = picture(SIZE), vizcnn.Occlusion(window=4)
    right = probe(model(lambda y: y), image, 2, progress=False).values
    for output in (None, "out"):
        own = model(lambda y: {"out": 2 * y, "rows": [y]}, output=output)
        found = probe(own, image, lambda raw: raw["rows"][0][:, 2], progress=False).values
        np.testing.assert_allclose(found, right, atol=1e-6)


def test_a_detector_has_no_output_of_its_own_even_if_its_boxes_are_as_many_as_images() -> None:
    boxes = [{"boxes": torch.rand(1, 4), "scores": torch.rand(1), "labels": torch.tensor([3])}]
    with pytest.raises(TargetError, match=r"list with 0.boxes \(1, 4\), 0.scores \(1,\)"):
        settle_output(boxes, None, 1)
    assert settle_output(boxes, lambda raw: raw[0]["scores"][None], 1).shape == (1, 1)


@pytest.mark.parametrize(
    ("shape", "images", "settled"),
    [
        ((2, 5), 2, (2, 5)),
        ((2, 5, 4, 4), 2, (2, 5, 4, 4)),
        ((2,), 2, (2, 1)),  # one logit without an axis of its own
        ((1,), 1, (1, 1)),
        ((), 1, (1, 1)),
        ((5,), 1, (1, 5)),  # squeezed
        ((5, 4, 4), 1, (1, 5, 4, 4)),
        ((5,), 2, None),
        ((2, 5, 4), 2, None),
        ((1, 5, 4), 1, None),  # tokens, or one class at each place: nobody knows
        ((3, 5), 2, None),
    ],
)
def test_axes_that_were_squeezed_away_come_back(
    shape: tuple[int, ...], images: int, settled: tuple[int, ...] | None
) -> None:
    values = torch.rand(shape)
    if settled is None:
        with pytest.raises(TargetError, match=r"not \(N, C\)"):
            settle_output(values, None, images)
    else:
        assert settle_output(values, None, images).shape == settled
        torch.testing.assert_close(settle_output(values, None, images).flatten(), values.flatten())


def test_whole_numbers_are_no_output() -> None:
    with pytest.raises(TargetError, match="of int64"):
        settle_output(torch.ones(1, 5, dtype=torch.int64), None, 1)


def test_tensors_are_named_by_the_way_to_them() -> None:
    one = torch.zeros(1)
    raw = {"a": (one, [one]), "b": Output(one, {"c": one}), "d": Named(one, "no tensor"), "e": object()}
    assert [*list_tensors(raw)] == ["a.0", "a.1.0", "b.logits", "b.hidden.c", "d.logits"]


def test_the_network_runs_as_the_person_says() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small_cnn()

        def forward(self, images: Tensor, age: Tensor) -> Tensor:
            out: Tensor = self.body(images) * age[:, None]
            return out

    own = vizcnn.Model(TwoInputs(), size=SIZE, forward=lambda network, x: network(x, x.new_full((len(x),), 3.0)))
    image, plain = picture(SIZE), vizcnn.Model(small_cnn(), size=SIZE)
    for probe in (vizcnn.Saliency(sign="signed"), vizcnn.Occlusion(window=4)):
        found, right = probe(own, image, 2, progress=False), probe(plain, image, 2, progress=False)
        np.testing.assert_allclose(found.values, 3 * right.values, rtol=1e-4, atol=1e-6)
    other = vizcnn.Model(own.network, size=SIZE, forward=lambda network, x: network(x, x.new_full((len(x),), 4.0)))
    assert own.network_sha256() != other.network_sha256()
    with pytest.raises(
        ParameterError, match="forward is a function from the network and images to its answer, got 'x'"
    ):
        vizcnn.Model(own.network, size=SIZE, forward="x")  # type: ignore[arg-type]


class Matching(nn.Module):
    """Compares images with three texts both ways, so that of three images either answer could be meant."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.texts = small_cnn(), nn.Parameter(torch.eye(5)[:3])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        per_image = self.body(images) @ self.texts.T
        return {"per_image": per_image, "per_text": per_image.T}


@pytest.mark.parametrize("probe", [vizcnn.TopImages(count=2), vizcnn.Embed(layer="output"), vizcnn.Saliency()])
def test_two_outputs_that_only_a_batch_of_some_size_has_are_named_by_every_probe(probe: Any) -> None:
    images, target = picture(SIZE, count=3), None if isinstance(probe, vizcnn.Embed) else 0
    with pytest.raises(TargetError, match=r"could be its output: per_image \(3, 3\), per_text \(3, 3\)"):
        probe(vizcnn.Model(Matching(), size=SIZE), images, target, progress=False)
    assert probe(vizcnn.Model(Matching(), size=SIZE, output="per_image"), images, target, progress=False)
