"""The table of networks: a probe does what `vizcnn check` says of it, and its numbers are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support_networks import (
    PAGE,
    ROWS,
    Row,
    Visit,
    draw_line,
    draw_page,
    hold_to_verdict,
    is_there,
    list_images,
    list_probes,
    list_rows,
    visit,
)
from torch import Tensor, nn

import vizcnn
from vizcnn.models.layers.capture import read_activations
from vizcnn.probes.rise import Masks

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::vizcnn.errors.VizcnnWarning"),
]


def skip_without(needs: tuple[str, ...]) -> None:
    if lacking := [need for need in needs if not is_there(need)]:
        pytest.skip(f"this row needs {', '.join(lacking)}")


@pytest.mark.parametrize("probe", list_probes())
@pytest.mark.parametrize("name", ROWS)
def test_a_probe_does_what_the_check_says(name: str, probe: str) -> None:
    skip_without(ROWS[name].needs)
    seen = visit(name)
    found = hold_to_verdict(probe, seen)
    if found is not None and probe in NUMBERS:
        verdict = seen.verdicts[probe]
        NUMBERS[probe](Plain(ROWS[name], seen, verdict["target"] or None), found)


@dataclass(frozen=True)
class Plain:
    """What a probe explains, in plain torch, without vizcnn's runs."""

    row: Row
    seen: Visit
    target: str | None
    shapes: dict[str, torch.Size] = field(default_factory=dict)  # of layers in our own reading, once read

    @property
    def network(self) -> Any:
        return self.seen.model.network

    def outputs(self, images: Tensor) -> Tensor:
        """The numbers of all classes (N, K) for images in [0, 1]."""
        return self.row.outputs(self.network, self._normalise(images))

    def _normalise(self, images: Tensor) -> Tensor:
        contract = self.seen.model.input
        mean, std = (images.new_tensor(each).view(1, -1, 1, 1) for each in (contract.mean, contract.std))
        return (images - mean) / std

    def score(self, images: Tensor) -> Tensor:
        """The explained number (N,): of the class that is predicted for the image, or of the target."""
        if self.row.explain is not None:
            return self.row.explain(self.network, self._normalise(self.seen.image()), self._normalise(images))
        with torch.no_grad():
            best = int(self.outputs(self.seen.image())[0].argmax())
        return self.outputs(images)[:, int(self.target) if self.target else best]

    def same(self, found: Any, wanted: Any, message: str = "") -> None:
        """Equal up to a small share of the largest number."""
        values, expected = (torch.as_tensor(each).detach().double().numpy() for each in (found, wanted))
        near = self.row.precision * float(np.abs(expected).max())
        np.testing.assert_allclose(values, expected, rtol=0, atol=near, err_msg=message)

    def read(self, layer: str, images: Tensor, *, gradient: bool = False) -> tuple[Tensor, Tensor]:
        """A layer's output, and the explained number's gradient by it, by a plain hook; channels first."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            kept[:] = [output if output.requires_grad else output.detach().requires_grad_()]
            return kept[0].clone()

        hook = dict(self.network.named_modules())[layer].register_forward_hook(keep)
        try:
            score = self.score(images.clone().requires_grad_()).sum()
            (slopes,) = torch.autograd.grad(score, kept[0], allow_unused=True) if gradient else (kept[0],)
        finally:
            hook.remove()
        return tuple(self._turn(layer, each.detach()) for each in (kept[0], slopes))  # type: ignore[return-value]

    def _turn(self, layer: str, values: Tensor) -> Tensor:
        """Channels first, where the row says that the layer may have them last: as the shape of our own reading is."""
        if not self.row.channels_last or values.dim() < 3:
            return values
        if layer not in self.shapes:
            with torch.no_grad(), self.seen.model.borrowed():
                self.shapes[layer] = read_activations(self.seen.model, self.seen.image(), [layer])[layer].shape[1:]
        turned, shape = values.movedim(-1, 1), self.shapes[layer]
        return turned if turned.shape[1:] == shape and values.shape[1:] != shape else values


def check_saliency(plain: Plain, found: Any) -> None:
    image = plain.seen.image().requires_grad_()
    (slopes,) = torch.autograd.grad(plain.score(image).sum(), image)
    plain.same(found.values[0, 0], slopes[0].abs().amax(0))
    plain.same(found.scores[0, 0], plain.score(image)[0])


def check_occlusion(plain: Plain, found: Any) -> None:
    """Four windows that do not overlap: each pixel has the drop of its own window."""
    image = plain.seen.image()
    height, width = (-(-side // 2) for side in plain.seen.model.input.size)
    wanted = torch.empty(image.shape[2:], dtype=torch.float64)
    with torch.no_grad():
        clean = plain.score(image)
        for y in (slice(0, height), slice(height, None)):
            for x in (slice(0, width), slice(width, None)):
                covered = image.clone()
                covered[..., y, x] = image.mean((2, 3), keepdim=True)
                wanted[y, x] = float(clean - plain.score(covered))
    assert_near(found.values[0, 0], wanted.numpy(), plain.row.precision * (1 + float(clean.abs())))


def check_rise(plain: Plain, found: Any) -> None:
    image, contract = plain.seen.image(), plain.seen.model.input
    masks = Masks(12, 3, 0.5, contract.size, 0).make(np.arange(12))  # (12, H, W)
    hidden = image.new_tensor(contract.mean).view(1, -1, 1, 1)
    with torch.no_grad():
        scores = torch.cat([plain.score(hidden + (image - hidden) * mask.to(image)) for mask in masks]).double()
    sums = masks.double().sum(0)
    seen = torch.einsum("b,bhw->hw", scores, masks.double()) / sums.clamp(min=1e-12) - scores.mean()
    wanted = torch.where(sums > 0, seen, 0.0)
    assert_near(found.values[0, 0], wanted.numpy(), plain.row.precision * (1 + float(scores.abs().max())))


def assert_near(found: npt.NDArray[Any], wanted: npt.NDArray[Any], near: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=near)


def check_cam(plain: Plain, found: Any) -> None:
    """Grad-CAM by the formula, at the layer that the check names."""
    layer = found.provenance.details["layer"]
    assert layer == plain.seen.verdicts["cam"]["takes"]
    activations, gradients = (each.double() for each in plain.read(layer, plain.seen.image(), gradient=True))
    small = (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()  # (1, 1, h, w)
    large = nn.functional.interpolate(small, plain.seen.model.input.size, mode="bilinear", align_corners=False)
    plain.same(found.values[0, 0], large[0, 0])


def check_feature_maps(plain: Plain, found: Any) -> None:
    layers = plain.seen.verdicts["feature-maps"]["takes"].split(", ")
    panels = found.rows[0].panels
    assert [panel.key.partition(".")[2] for panel in panels] == layers
    for layer, panel in zip(layers, panels, strict=True):
        maps, _ = plain.read(layer, plain.seen.image())
        plain.same(panel.values, maps[0, list(panel.channels)], layer)
        strongest = maps[0].amax((1, 2)).double().argmax()
        assert float(maps[0, panel.channels[0]].max()) == pytest.approx(float(maps[0, strongest].max()), rel=1e-3)


def check_filters(plain: Plain, found: Any) -> None:
    layer = dict(plain.network.named_modules())[plain.seen.verdicts["filters"]["takes"]]
    assert isinstance(layer, nn.Conv2d)
    (panel,) = found.rows[0].panels
    weights = layer.weight.detach()[: len(panel.values)]  # (K, C, h, w)
    plain.same(panel.values, weights.permute(0, 2, 3, 1) if panel.is_rgb else weights[:, 0])


def check_layers(plain: Plain, found: Any) -> None:
    """The table adds up to what the network has; of shared and idle ones each is counted once."""
    counted = sum(row[found.columns.index("parameters")] for row in found.rows)
    assert counted <= sum(each.numel() for each in plain.network.parameters())
    modules = dict(plain.network.named_modules())
    for row in found.rows:
        assert row[1] == type(modules[row[0]]).__name__


def check_top_images(plain: Plain, found: Any) -> None:
    images, maps = list_images(plain.seen), dict[str, Tensor]()
    for row in found.rows:
        layer, _, channel = row.target.rpartition(":")
        if layer not in maps:
            maps[layer] = torch.cat([plain.read(layer, image[None])[0] for image in images])  # (4, C, h, w)
        highest = maps[layer][:, int(channel)].flatten(1).amax(1)
        for exemplar in row.exemplars:
            plain.same(exemplar.value, highest[exemplar.number], row.target)
        best = highest.sort(descending=True).values[: len(row.exemplars)]
        plain.same([each.value for each in row.exemplars], best, row.target)


def check_embed(plain: Plain, found: Any) -> None:
    """Features are what enters the layer, averaged over places."""
    name = plain.seen.verdicts["embed"]["takes"]
    assert name == found.provenance.details["layer"]
    layer, kept = dict(plain.network.named_modules())[name.removeprefix("what enters ")], list[Tensor]()
    hook = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            for image in list_images(plain.seen):
                plain.outputs(image[None])
    finally:
        hook.remove()
    entered = torch.cat(kept)
    plain.same(found.features, entered.mean((2, 3)) if entered.dim() == 4 else entered)


def check_maximize(plain: Plain, found: Any) -> None:
    """What stands below a picture is what the network says of it."""
    pictures = [tile for row in found.rows for panel in row.panels for tile in panel.values]
    images = torch.from_numpy(np.stack(pictures)).to(plain.seen.image())
    images = images.permute(0, 3, 1, 2) if images.dim() == 4 else images[:, None]  # (K, C, H, W)
    with torch.no_grad():
        outputs = torch.cat([plain.outputs(image[None]) for image in images])  # (K, classes)
    classes = [int(plain.target)] if plain.target else range(len(images))
    plain.same(found.reached, torch.stack([outputs[i, c] for i, c in enumerate(classes)]))


def check_arithmetic(plain: Plain, found: Any) -> None:
    """The products add up to what the convolution gives, less its bias."""
    (unit,) = found.units
    layer, _, channel = unit.name.partition("@")[0].rpartition(":")
    given, _ = plain.read(layer, plain.seen.image())  # (1, C, h, w)
    bias = dict(plain.network.named_modules())[layer].bias
    wanted = given[0, int(channel), *unit.place] - (0 if bias is None else bias[int(channel)])
    plain.same(unit.addends[0].sums.sum(), wanted)


NUMBERS: dict[str, Callable[[Plain, Any], None]] = {
    "arithmetic": check_arithmetic,
    "cam": check_cam,
    "embed": check_embed,
    "feature-maps": check_feature_maps,
    "filters": check_filters,
    "layers": check_layers,
    "maximize": check_maximize,
    "occlusion": check_occlusion,
    "rise": check_rise,
    "saliency": check_saliency,
    "top-images": check_top_images,
}
"""By probe, how its numbers are computed in plain torch. Those of `invert`, `dream`, `style` and `deconvnet` are tested
where the probes are; here they have to answer."""


@pytest.mark.parametrize("name", ROWS)
def test_the_page_says_what_the_check_says(name: str) -> None:
    skip_without(ROWS[name].needs)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert draw_line(name) in lines, f"{PAGE.name} is out of date: python tests/support_networks.py"


def test_the_page_has_no_other_rows() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    named = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert named == ["network", *ROWS]
    if list_rows() == list(ROWS):
        assert lines == list(draw_page())


def test_a_network_is_as_it_was_after_the_check() -> None:
    model = vizcnn.testing.delicate_model()
    before = vizcnn.testing.state_of(model)
    vizcnn.check(model)
    assert vizcnn.testing.state_of(model) == before
