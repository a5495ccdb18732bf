"""An image gets from a probe what it gets alone, whatever other images are in the call and however many run at once;
one that cannot be answered for is left out, and the others stay."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import DegenerateResult, NonFiniteResult, VizcnnWarning
from vizcnn.probing import registry
from vizcnn.probing.probe import list_options
from vizcnn.results import Pictures, UnitSums

QUICK: dict[str, dict[str, Any]] = {
    "dream": {"steps": 2, "octaves": 2, "size": 20},
    "invert": {"steps": 3},
    "occlusion": {"window": 6, "stride": 4},
    "rise": {"masks": 60},
    "saliency": {"samples": 4, "steps": 8},
    "style": {"steps": 3, "size": 20},
}
METHODS = {
    "saliency": [
        *("gradient", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop", "deconvnet")
    ],
    "cam": ["grad-cam", "grad-cam++", "layer-cam", "score-cam", "eigen-cam"],
}
EACH = [
    (name, method)
    for name in registry.list_names()
    if registry.get(name).needs_images and not registry.get(name).streams
    for method in METHODS.get(name, [None])
]
"""Every probe that answers for each image, by each of its methods."""

ATTRIBUTIONS = [one for one in EACH if one[0] not in ("dream", "invert", "style")]


def images(count: int = 3) -> Tensor:
    """Images of very different brightness."""
    random = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return random * torch.linspace(0.4, 1, count).view(-1, 1, 1, 1)


def made(name: str, method: str | None, **options: Any) -> Any:
    kind = registry.get(name)
    known = {option.name for option in list_options(kind)}
    asked = {**QUICK.get(name, {}), **({"method": method} if method else {}), **options}
    return kind(**{key: value for key, value in asked.items() if key in known and value is not None})


def model(network: nn.Module | None = None) -> vizcnn.Model:
    return vizcnn.Model(
        network or small_cnn(), size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), labels=list("abcde")
    )


def numbers(result: Any, i: int) -> dict[str, Any]:
    """The numbers of image i."""
    if isinstance(result, vizcnn.Heatmap):
        return {"values": result.values[i], "scores": result.scores[i]}
    if isinstance(result, Pictures):
        return {"image": result.scenes[i].image}
    if isinstance(result, UnitSums):
        return {
            f"{unit.name} {number}": values
            for unit in result.rows[i]
            for number, values in enumerate(
                [np.array([unit.bias, unit.before, unit.after, unit.network])]
                + [each for addend in unit.addends for each in (addend.patch, addend.weights, addend.sums)]
            )
        }
    return {str(number): panel.values for number, panel in enumerate(result.rows[i].panels)}


def words(result: Any, i: int) -> dict[str, Any]:
    """What is said of image i."""
    said: dict[str, Any] = {"targets": result.provenance.targets[i], "specs": result.provenance.target_specs[i]}
    if isinstance(result, vizcnn.Heatmap):
        labels = [each.label for each in result.predictions[i]]
        return {**said, "findings": result.findings[i], "marks": result.marks[i], "labels": labels}
    if isinstance(result, vizcnn.ImageGrid) and not hasattr(result, "reached"):
        titles = [(panel.title, panel.channels, panel.titles) for panel in result.rows[i].panels]
        scene = result.rows[i].scene
        assert scene is not None
        return {**said, "titles": titles, "marks": scene.marks}
    if isinstance(result, UnitSums):
        units = [(unit.title, unit.place, unit.activation, unit.scene.marks) for unit in result.rows[i]]
        return {**said, "units": units, "reads": [each.reads for unit in result.rows[i] for each in unit.addends]}
    return said


def close(found: Mapping[str, Any], expected: Mapping[str, Any], near: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=near * float(np.abs(value).max()), err_msg=key)


def asked_of(name: str) -> list[Any]:
    """The targets to ask a probe for: each image's own class, and two that all images share."""
    if not registry.get(name).needs_target:
        return [None]
    special: dict[str, list[Any]] = {"deconvnet": [["3:5", "0:2"]], "dream": ["3:5"], "cam": [None, ["b", "c"]]}
    return special.get(name, [None, ["b", "3:5"]])


@pytest.mark.parametrize(("name", "method"), EACH)
def test_an_image_in_company_is_answered_as_alone(name: str, method: str | None) -> None:
    batches = [1, 2, None] if "batch" in {option.name for option in list_options(registry.get(name))} else [None]
    for target in asked_of(name):
        alone = [made(name, method)(model(), image, target, seed=7, progress=False) for image in images()]
        for batch in batches:
            together = made(name, method, batch=batch)(model(), images(), target, seed=7, progress=False)
            for i, one in enumerate(alone):
                close(numbers(together, i), numbers(one, 0))
                assert words(together, i) == words(one, 0)
                assert together.provenance.images[i] == one.provenance.images[0]


class Moody(nn.Module):
    """Gives infinity or NaN for very bright images, from its first layer on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x / (x.mean((1, 2, 3), keepdim=True) < 0.7))
        return out


@pytest.mark.parametrize(("name", "method"), EACH)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_one_bad_image_is_left_out_with_its_reason(name: str, method: str | None, bad: int, tmp_path: Path) -> None:
    special = {"deconvnet": "inner.3:5", "dream": "inner.3:5"}
    target = special.get(name, "b") if registry.get(name).needs_target else None
    inputs = images() * 0.5
    inputs[bad] = 1 - inputs[bad]
    probe, moody = made(name, method), model(Moody())
    good = [i for i in range(3) if i != bad]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", VizcnnWarning)
        found = probe(moody, inputs, target, progress=False)
    assert len([one for one in seen if "1 image was left out, see `result.refused`. tensor: " in str(one.message)]) == 1
    ((refused, reason),) = found.refused
    assert refused == "tensor"
    assert "nan" in reason.lower()
    expected = probe(moody, inputs[good], target, progress=False)
    for i in range(2):
        close(numbers(found, i), numbers(expected, i))
        assert words(found, i) == words(expected, i)
    assert not expected.refused
    assert vizcnn.load_result(found.save(tmp_path / "a.npz")).refused == found.refused
    with pytest.raises(NonFiniteResult):
        probe(moody, inputs, target, progress=False, strict=True)
    with pytest.raises(NonFiniteResult):
        probe(moody, inputs[bad], target, progress=False)


class Asleep(nn.Module):
    """Wakes up for light only: all its units are at zero for a dark image, whatever covers it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.rand(self.conv.weight.shape, generator=torch.Generator().manual_seed(0)))
            self.conv.weight.div_(self.conv.weight.sum((1, 2, 3), keepdim=True))
            self.conv.bias.fill_(-0.6)  # type: ignore[union-attr]
            self.fc.weight.copy_(torch.tensor([[1.0, 2, 3, 4], [2, 4, 1, 3]]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return logits


FIND_SOMETHING = [("arithmetic", None), ("feature-maps", None), ("saliency", "deconvnet"), ("cam", "eigen-cam")]
"""In a sleeping network too: what does not ask for the target, passes ReLUs that are shut, or adds up: zeros and a bias
are a sum as well."""


@pytest.mark.parametrize(("name", "method"), [one for one in ATTRIBUTIONS if one not in FIND_SOMETHING])
@pytest.mark.parametrize("dark", [0, 2])
def test_one_image_that_nothing_speaks_for_is_left_out(name: str, method: str | None, dark: int) -> None:
    asleep, target = vizcnn.Model(Asleep(), size=16), "conv:1" if name == "deconvnet" else 1
    inputs = 1 - images() / 4
    inputs[dark] = images()[dark] * 0.3
    probe = made(name, method, fill="black" if name == "rise" else None)
    with pytest.warns(VizcnnWarning, match=r"1 image was left out, see `result.refused`. tensor: ") as seen:
        found = probe(asleep, inputs, target, progress=False)
    assert len(seen) == 1
    assert [name for name, _ in found.refused] == ["tensor"]
    good = [i for i in range(3) if i != dark]
    expected = probe(asleep, inputs[good], target, progress=False)
    for i in range(2):
        close(numbers(found, i), numbers(expected, i))
        assert words(found, i) == words(expected, i)
    for arguments in ({"images": inputs, "strict": True}, {"images": inputs[dark]}):
        with pytest.raises(DegenerateResult) as caught:
            probe(asleep, target=target, progress=False, **arguments)
        assert str(caught.value).endswith(found.refused[0][1])


class Hungry(nn.Module):
    """Has no memory for more than three images."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = small_cnn(), list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory on purpose")
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize(("name", "method"), ATTRIBUTIONS)
def test_where_memory_ends_fewer_images_run_at_once(name: str, method: str | None) -> None:
    target = {"deconvnet": "inner.3:5", "feature-maps": None}.get(name, "b")
    hungry, options = Hungry(), {"engine": "plain"} if name == "occlusion" else {}
    found = made(name, method, **options)(model(hungry), images(7), target, progress=False)
    if name != "feature-maps":  # a processor runs these one by one
        assert max(hungry.seen) > 3
    plenty = Hungry()
    plenty.forward = plenty.inner.forward  # type: ignore[method-assign]
    expected = made(name, method, **options)(model(plenty), images(7), target, progress=False)
    for i in range(7):
        close(numbers(found, i), numbers(expected, i))


def test_the_noise_of_smoothgrad_is_the_same_to_the_last_bit() -> None:
    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.heard = small_cnn(), list[Tensor]()

        def forward(self, x: Tensor) -> Tensor:
            self.heard.append(x.detach().clone())
            out: Tensor = self.inner(x)
            return out

    def hear(inputs: Tensor, batch: int | None) -> list[bytes]:
        """All that the network is shown, image by image."""
        network = Listening()
        vizcnn.Saliency(method="smoothgrad", samples=4, batch=batch)(
            vizcnn.Model(network, size=16), inputs, 1, seed=7, progress=False
        )
        return [one.numpy().tobytes() for heard in network.heard for one in heard]

    for batch in (None, 1, 3, 8):
        together = hear(images(), batch)
        for image in images():
            copies = hear(image[None], None)[-4:]
            assert len({*copies, image.numpy().tobytes()}) == 5
            assert {*copies} <= {*together}
