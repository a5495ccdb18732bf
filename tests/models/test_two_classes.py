"""One logit that tells two classes apart: both have names, numbers and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import picture, small_cnn
from torch import nn

import vizcnn
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models.targets import target

SIZE = (12, 12)
LABELS = ["benign", "malignant"]


def network(last: nn.Module | None = None) -> nn.Module:
    """Logits of either sign for the two images below."""
    torch.manual_seed(0)
    head = nn.Linear(5, 1)
    nn.init.constant_(head.weight, 30.0)
    body = small_cnn()
    with torch.no_grad():
        head.bias.copy_(-head(body.eval()(images())).mean())
    return nn.Sequential(body, head, *([last] if last else []))


def images() -> torch.Tensor:
    return torch.cat([picture(SIZE, seed=1), picture(SIZE, seed=2) / 3])


def model(last: nn.Module | None = None, **said: Any) -> vizcnn.Model:
    return vizcnn.Model(network(last), **{"size": SIZE, "labels": LABELS, **said})


@torch.no_grad()
def logits() -> np.ndarray[Any, np.dtype[np.float64]]:
    return network().eval()(images())[:, 0].double().numpy()  # type: ignore[no-any-return]


def score(own: vizcnn.Model, what: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return vizcnn.Occlusion(window=6)(own, images(), what, progress=False).scores[:, 0]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def test_the_images_are_told_apart() -> None:
    assert sorted(np.sign(logits())) == [-1, 1]


@pytest.mark.parametrize("head", [None, "logits", "sigmoid-logits"])
def test_each_class_has_a_number_and_a_probability(head: Any) -> None:
    own, z = model(head=head), logits()
    for what, right in {
        0: z, "0": z, "positive": z, "malignant": z, "Malignant": z,
        "negative": -z, "benign": -z,
        "p(0)": sigmoid(z), "p(malignant)": sigmoid(z), "p(positive)": sigmoid(z),
        "p(benign)": 1 - sigmoid(z), "p(negative)": 1 - sigmoid(z),
    }.items():  # fmt: skip
        np.testing.assert_allclose(score(own, what), right, rtol=1e-3, atol=1e-5, err_msg=str(what))


def test_after_a_sigmoid_the_numbers_are_probabilities() -> None:
    own, p = model(nn.Sigmoid()), sigmoid(logits())
    for what, right in {"malignant": p, "p(malignant)": p, "benign": 1 - p, "p(benign)": 1 - p}.items():
        np.testing.assert_allclose(score(own, what), right, rtol=1e-3, atol=1e-5, err_msg=what)


@pytest.mark.filterwarnings("ignore:the target .* is a probability")
@pytest.mark.parametrize("last", [None, nn.Sigmoid()], ids=["logit", "sigmoid"])
def test_the_predicted_class_is_the_more_probable_one(last: nn.Module | None) -> None:
    result = vizcnn.Saliency(sign="signed")(model(last), images(), progress=False)
    for i, z in enumerate(logits()):
        name, share = (LABELS[1], sigmoid(z)) if z > 0 else (LABELS[0], 1 - sigmoid(z))
        assert result.provenance.targets[i] == (name,)
        assert result.predictions[i][0].label == name
        assert result.predictions[i][0].probability == pytest.approx(share, rel=1e-3)
        assert [p.label for p in result.predictions[i]] == [name, next(n for n in LABELS if n != name)]
        assert f"{name} {share:.0%}; " in result.findings[i][0]


def test_what_speaks_for_one_class_speaks_against_the_other() -> None:
    own = model()
    for probe in (vizcnn.Saliency(sign="signed"), vizcnn.Occlusion(window=6), vizcnn.Rise(masks=10)):
        both = probe(own, images(), ["benign", "malignant"], progress=False).values
        np.testing.assert_allclose(both[:, 0], -both[:, 1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, ["0", "1"], ["positive", "negative"], ["#1", "=2"]], ids=str)
def test_what_the_provenance_says_is_the_same_target(labels: list[str]) -> None:
    own = model(labels=labels)
    for side in (0, 1):
        one = target(f"={labels[side]}").resolved(own)
        assert str(one) == labels[side]
        again = target(one.spec).resolved(own)
        assert (again, str(again)) == (one, str(one))
    assert target(0).resolved(own) == target("#0").resolved(own) == target(f"={labels[1]}").resolved(own)


def test_a_name_that_is_a_number_is_not_guessed() -> None:
    with pytest.raises(TargetError, match="'0' names a class .* Give '#0' for this output, which is 1's, or '=0'"):
        target("0").resolved(model(labels=["0", "1"]))


def test_other_numbers_and_names_are_refused() -> None:
    with pytest.raises(TargetError, match="has one output, number 0, for its classes benign and malignant, got 1"):
        score(model(), 1)
    with pytest.raises(TargetError, match="Did you mean 'benign'"):
        score(model(), "beningn")
    with pytest.raises(ParameterError, match="1 outputs but 3 labels"):
        score(model(labels=["a", "b", "c"]), 0)


def test_one_number_of_which_nothing_is_known_has_no_predicted_class() -> None:
    own = model(nn.Softsign(), head="scores")
    with pytest.raises(TargetError, match="nothing shows whether it is a logit or a probability. Say Model"):
        score(own, None)
    np.testing.assert_allclose(score(own, "benign"), -score(own, "malignant"))


def test_a_network_of_two_outputs_has_no_sides() -> None:
    own = vizcnn.Model(nn.Sequential(small_cnn(), nn.Linear(5, 2)), size=SIZE, labels=LABELS)
    assert target("malignant").resolved(own) == target(1).resolved(own)
    with pytest.raises(TargetError, match="'positive'"):
        target("positive").resolved(own)


@pytest.mark.parametrize("labels", [None, ["tumour"]])
def test_the_only_output_is_what_is_explained(labels: Any) -> None:
    result = vizcnn.Occlusion(window=6)(model(labels=labels), images(), progress=False)
    np.testing.assert_allclose(result.scores[:, 0], logits(), rtol=1e-3)
    assert bool(result.predictions[0]) == bool(labels)
    if labels:
        assert result.predictions[0][0].probability == pytest.approx(sigmoid(logits()[0]), rel=1e-3)
