"""What the outputs are is found out once, and whatever speaks of them obeys: p(...), predictions, words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import ParameterError, TargetError
from vizcnn.models.head import Makers, find_head
from vizcnn.results.maps import Prediction

pytestmark = pytest.mark.filterwarnings("ignore:.*is a probability")
NAMES = ["a", "b", "c", "d"]
LOGITS = torch.tensor([3.0, -3.0, 0.0, 1.0])


class Ending(nn.Module):
    """A network whose logits hardly depend on the image, and what it makes of them at the end."""

    def __init__(self, end: Callable[[Tensor], Tensor], logits: Tensor = LOGITS) -> None:
        super().__init__()
        self.end, self.fc = end, nn.Linear(3, len(logits))
        with torch.no_grad():
            self.fc.weight.copy_(torch.linspace(-1e-2, 1e-2, self.fc.weight.numel()).view_as(self.fc.weight))
            self.fc.bias.copy_(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.fc(x.mean((2, 3))))


def asked(network: nn.Module, targets: Any, **options: Any) -> vizcnn.Heatmap:
    network = network.to(options.pop("dtype", torch.float32))
    count = options.pop("classes", 4)
    model = vizcnn.Model(network, size=8, labels=NAMES[:count], name="net", **options)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-2
    return vizcnn.Saliency()(model, image, targets, progress=False)


SOFTMAX, SIGMOID = LOGITS.softmax(0), LOGITS.sigmoid()
HALF = {"dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("end", "options", "head", "expected"),
    [
        (nn.Identity(), {}, "logits", SOFTMAX),
        (nn.Softmax(1), {}, "softmax", SOFTMAX),
        (lambda x: x.softmax(-1), HALF, "softmax", SOFTMAX),
        (lambda x: x.exp() / x.exp().sum(1, keepdim=True), {}, "softmax", SOFTMAX),
        (nn.LogSoftmax(1), {}, "log-softmax", SOFTMAX),
        (lambda x: F.log_softmax(x, 1), HALF, "log-softmax", SOFTMAX),
        (nn.Sigmoid(), {}, "sigmoid", SIGMOID),
        (lambda x: torch.sigmoid(x)[:, None].squeeze(1).float(), HALF, "sigmoid", SIGMOID),
        (lambda x: x.clone().sigmoid_().view(len(x), -1), {}, "sigmoid", SIGMOID),
        (nn.Identity(), {"head": "sigmoid-logits"}, "sigmoid-logits", SIGMOID),
        (lambda x: 1 / (1 + (-x).exp()), {"head": "sigmoid"}, "sigmoid", SIGMOID),
    ],
)
def test_p_is_the_probability_whatever_the_network_ends_in(
    end: Callable[[Tensor], Tensor], options: dict[str, Any], head: str, expected: Tensor
) -> None:
    found = asked(Ending(end), [f"p({name})" for name in NAMES], **options)
    near = 2e-2 if options == HALF else 1e-3
    torch.testing.assert_close(torch.from_numpy(found.scores[0]), expected, atol=near, rtol=near)
    order = expected.argsort(descending=True).tolist()
    assert [each.label for each in found.predictions[0]] == [NAMES[i] for i in order]
    assert [each.probability for each in found.predictions[0]] == pytest.approx(expected[order].tolist(), abs=near)
    plain = asked(Ending(end), "a", **options)
    quantity = {"logits": "logit", "sigmoid-logits": "logit", "log-softmax": "log-probability"}.get(head, "probability")
    assert plain.meanings == (f"d {quantity} / d pixel (gradient, largest magnitude over colours)",)


@pytest.mark.parametrize("value", [0.03, 0.9, -2.0, 5.0])
def test_one_logit_is_not_certain(value: float) -> None:
    """A softmax over one class is 1 whatever the image."""
    chance = float(torch.tensor(value).sigmoid())
    for end in (nn.Identity(), nn.Sigmoid()):
        found = asked(Ending(end, torch.tensor([value])), ["p(a)"], classes=1)
        assert found.scores[0, 0] == pytest.approx(chance, abs=1e-3)
        assert found.predictions[0][0].probability == pytest.approx(chance, abs=1e-3)
        assert f"a {100 * chance:.0f}%; " in found.describe()


def test_logits_between_0_and_1_are_logits_where_a_linear_layer_makes_them() -> None:
    logits = torch.tensor([0.2, 0.9, 0.5, 0.7])
    found = asked(Ending(nn.Identity(), logits), "p(b)")
    assert found.scores[0, 0] == pytest.approx(float(logits.softmax(0)[1]), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_linear_layer_makes_are_logits_though_they_may_add_up(dtype: torch.dtype) -> None:
    for logits in (torch.tensor([0.25, 0.75]), torch.tensor([0.25, 0.75]).log()):
        found = asked(Ending(nn.Identity(), logits), "p(b)", classes=2, dtype=dtype)
        assert found.scores[0, 0] == pytest.approx(float(logits.softmax(0)[1]), abs=1e-2)


@pytest.mark.parametrize(
    ("end", "head"),
    [
        (lambda x: torch.stack([x, x]).mean(0), "logits"),
        (lambda x: (x * 0.01).relu() + 0.4, "logits"),
        (lambda x: torch.sigmoid(x)[:, :, None, None].expand(-1, -1, 2, 2).mean((2, 3)), "sigmoid"),
        (lambda x: torch.stack([torch.sigmoid(x), torch.sigmoid(x + 1)]).mean(0), "sigmoid"),
        (lambda x: F.adaptive_avg_pool2d(torch.sigmoid(x)[:, :, None, None], 1).flatten(1), "sigmoid"),
        (lambda x: 1 - torch.sigmoid(x), "scores"),
        (lambda x: torch.sigmoid(x) @ torch.full((4, 4), 0.2), "scores"),
        (lambda x: torch.cat([torch.sigmoid(x[:, :2]), 1 - torch.sigmoid(x[:, 2:])], 1), "scores"),
    ],
)
def test_what_is_made_of_sigmoids_is_not_taken_for_logits(end: Callable[[Tensor], Tensor], head: str) -> None:
    model = vizcnn.Model(Ending(end), size=8)
    with torch.no_grad(), Makers() as makers:
        output = model(torch.rand(2, 3, 8, 8))
        assert find_head(output, makers=makers) == head


def test_tensors_without_memory_of_their_own_do_no_harm() -> None:
    class Wrapping(Tensor):
        """As libraries of quantised and distributed tensors make theirs."""

        inside: Tensor

        @staticmethod
        def __new__(cls, inner: Tensor) -> Wrapping:
            made: Wrapping = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
            made.inside = inner
            return made

        @classmethod
        def __torch_dispatch__(cls, func: Any, *given: Any) -> Any:
            _types, args, kwargs = given
            plain = [arg.inside if isinstance(arg, Wrapping) else arg for arg in args]
            return Wrapping(func(*plain, **kwargs))

    def end(logits: Tensor) -> Any:
        wrapped: Any = Wrapping(logits.detach()) + 1
        return logits + 0 * wrapped.inside

    found = asked(Ending(end), "p(a)")
    assert found.scores[0, 0] == pytest.approx(float(LOGITS.softmax(0)[0]), abs=1e-3)


def test_where_nothing_shows_what_the_outputs_are_probabilities_are_refused() -> None:
    network = Ending(lambda x: 1 / (1 + (-x).exp()))  # a sigmoid by hand looks like any number between 0 and 1
    with pytest.raises(TargetError, match=r"Say what they are: Model\(head=...\), one of logits, softmax"):
        asked(network, "p(a)")
    plain = asked(network, "a")
    assert plain.predictions == ((),)
    assert plain.meanings[0].startswith("d score / d pixel")


def test_a_head_that_the_outputs_cannot_have_is_refused() -> None:
    with pytest.raises(ParameterError, match="said to be softmax, but its outputs are -3..3. Give"):
        asked(Ending(nn.Identity()), "a", head="softmax")
    with pytest.raises(ParameterError, match="said to be sigmoid, but its outputs are -3"):
        asked(Ending(nn.Identity()), "a", head="sigmoid")
    with pytest.raises(ParameterError, match="head must be one of .* Did you mean 'sigmoid'"):
        asked(Ending(nn.Identity()), "a", head="sigmoids")


def test_maximize_and_occlusion_obey_too() -> None:
    model = vizcnn.Model(Ending(nn.Identity(), torch.tensor([0.5])), size=8, labels=["tumour"])
    (reached,) = vizcnn.Maximize(steps=1)(model, target="p(tumour)", progress=False).reached
    assert reached == pytest.approx(0.62, abs=0.02)
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    covered = vizcnn.Occlusion(fill="black", window=8)(model, blue, "p(tumour)", progress=False)
    assert covered.scores[0, 0] == pytest.approx(0.62, abs=0.02)
    assert covered.meanings == ("probability lost when covered",)


@pytest.mark.parametrize(
    ("probability", "share", "percent"),
    [(0.5, "0.50", "50.0"), (0.9996, ">0.99", ">99.9"), (1.0, ">0.99", ">99.9"), (0.0004, "<0.01", "<0.1")],
)
def test_nothing_is_called_certain(probability: float, share: str, percent: str) -> None:
    said = Prediction("a", probability)
    assert (said.said(), said.said(100, 1)) == (share, percent)


def test_maps_of_classes_have_heads_too() -> None:
    maps = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert find_head(maps.softmax(1)) == "softmax"
    assert find_head(maps * 9 - 3) == "logits"
    assert find_head([maps]) == "scores"
