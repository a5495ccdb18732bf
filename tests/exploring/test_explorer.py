"""What an explorer answers is what plain runs of the network, and the probes, say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import picture, small_cnn
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import LayerNotFound, ParameterError, TargetError, VizcnnWarning
from vizcnn.exploring.sources import MOST_IMAGES

GREY = vizcnn.Occlusion(fill="#7f7f7f", window=4, stride=4)


def _model(**how: Any) -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), **how)


@pytest.fixture
def model() -> vizcnn.Model:
    return _model(name="small")


@pytest.fixture
def image() -> Tensor:
    return picture((16, 16))[0]


def _run(model: vizcnn.Model, image: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(image[None])[0]
    return output


def test_a_covered_answer_is_that_of_a_plain_run_with_those_pixels_filled(model: vizcnn.Model, image: Tensor) -> None:
    found = vizcnn.explore(model, image, 2, methods=[GREY]).cover(3, 5, 4, 6)
    filled = image.clone()
    filled[:, 3:7, 5:11] = 127 / 255
    before, after = _run(model, image), _run(model, filled)
    assert found.before == float(before[2])
    assert found.after == pytest.approx(float(after[2]), abs=1e-6)
    shares = before.softmax(0), after.softmax(0)
    assert {one.number for one in found.classes} >= {int(each.argmax()) for each in shares}
    for one in found.classes:
        assert one.before == pytest.approx(float(shares[0][one.number]), abs=1e-6)
        assert one.after == pytest.approx(float(shares[1][one.number]), abs=1e-6)


def test_the_class_that_is_explained_is_listed_however_improbable(image: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = vizcnn.Model(network, size=16)
    least = int(_run(model, image).argmin())
    classes = vizcnn.explore(model, image, least).answer().classes
    assert [one.number for one in classes][-1] == least
    assert len(classes) == 6


def test_several_parts_are_covered_at_once_and_uncovered(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, image, 0, methods=[GREY])
    explorer.cover(0, 0, 3, 3)
    answers = explorer.cover(8, 8, 5, 2, more=True)
    filled = image.clone()
    filled[:, :3, :3] = filled[:, 8:13, 8:10] = 127 / 255
    assert torch.equal(explorer.inputs, filled)
    assert answers.after == pytest.approx(float(_run(model, filled)[0]), abs=1e-6)
    explorer.uncover()
    assert torch.equal(explorer.inputs, image)
    assert explorer.answer().after is None


@pytest.mark.parametrize("fill", ["blur", "mean", "model"])
def test_covering_costs_what_occlusion_says(model: vizcnn.Model, image: Tensor, fill: str) -> None:
    probe = vizcnn.Occlusion(fill=fill, window=4, stride=4, engine="plain")
    explorer = vizcnn.explore(model, image, 1, methods=[probe])
    values = explorer.make_map().values  # windows do not overlap, so that each value is one window's drop
    answers = explorer.cover(8, 4, 4, 4)
    assert answers.after is not None
    assert answers.before - answers.after == pytest.approx(float(values[9, 6]), abs=1e-5)
    assert fill == explorer.fill


def test_the_fill_is_that_of_occlusion_by_default(model: vizcnn.Model, image: Tensor) -> None:
    assert vizcnn.explore(model, image, methods=["cam"]).fill == vizcnn.Occlusion().fill == "blur"


def test_the_class_that_was_predicted_stays_the_target_when_another_is_predicted(brightness: vizcnn.Model) -> None:
    image = torch.full((3, 8, 8), 0.5)
    image[:, :4, :4] = 1
    black = vizcnn.Occlusion(fill="black")
    answers = vizcnn.explore(brightness, image, methods=[black]).cover(0, 0, 4, 4)
    assert answers.target == "corner"
    assert (answers.before, answers.after) == (2, -2)
    assert [one.label for one in answers.classes if one.after and one.after > 0.5] == ["all"]


@pytest.mark.parametrize("name", ["occlusion", "cam", "saliency", "rise"])
def test_a_map_is_the_one_that_the_probe_gives(model: vizcnn.Model, image: Tensor, name: str) -> None:
    kinds: dict[str, vizcnn.Probe[Any]] = {
        "occlusion": vizcnn.Occlusion(),
        "cam": vizcnn.Cam(),
        "saliency": vizcnn.Saliency(),
        "rise": vizcnn.Rise(),
    }
    explorer = vizcnn.explore(model, image, 1, seed=3)
    explorer.choose_method(name)
    found = explorer.make_map()
    plain = kinds[name](model, image, 1, seed=3)
    np.testing.assert_array_equal(found.values, plain.values[0, 0])
    assert (found.method, found.signed, found.end) == (name, plain.signed, plain.scale(0, 0))
    assert found.score == plain.scores[0, 0]
    assert found.trust is None


def test_a_map_of_a_unit_is_that_of_the_probe_that_projects_it(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, image, "0:3", methods=["deconvnet"])
    found = explorer.make_map()
    plain = vizcnn.Deconvnet()(model, image, "0:3")
    np.testing.assert_array_equal(found.values, plain.list_maps(0)[0])
    assert found.score is None


def test_a_map_is_judged_when_that_is_asked(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, image, 1, methods=["saliency"])
    assert explorer.make_map(trust=True).trust == vizcnn.Saliency()(model, image, 1, trust=True).trust[0][0]


def test_a_unit_is_what_a_plain_hook_sees(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, image, methods=[GREY])
    layers = explorer.list_layers()
    layer, (channels, rows, columns) = next(iter(layers.items()))
    for covered in (False, True):
        if covered:
            explorer.cover(2, 2, 9, 9)
        seen = list[Tensor]()
        handle = model.layer(layer).register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out.clone()))
        _run(model, explorer.inputs)
        handle.remove()
        found = explorer.read_unit(layer, 1)
        assert found.values.shape == (rows, columns)
        np.testing.assert_allclose(found.values, seen[0][0, 1].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.peaks, seen[0][0].amax((1, 2)).numpy(), atol=1e-6)
        assert (len(found.peaks), found.covered) == (channels, int(covered))


def test_what_does_not_exist_is_refused_and_changes_nothing(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, [image, image / 2], 1, methods=["cam", "occlusion"])
    before = explorer.answer()
    with pytest.raises(ParameterError, match="numbered 0 to 1, got 2"):
        explorer.choose_image(2)
    with pytest.raises(ParameterError, match="Did you mean 'occlusion'"):
        explorer.choose_method("oclusion")
    with pytest.raises(TargetError):
        explorer.choose_target("no such class")
    with pytest.raises(TargetError, match="one target at a time"):
        explorer.choose_target([0, 1])
    for box in [(0, 0, 17, 1), (-1, 0, 2, 2), (0, 0, 0, 3), (0, 15, 2, 2), (0.5, 0, 2, 2)]:
        with pytest.raises(ParameterError, match="inside 16 x 16"):
            explorer.cover(*box)  # type: ignore[arg-type]
    with pytest.raises(LayerNotFound):
        explorer.read_unit("nowhere", 0)
    with pytest.raises(TargetError, match="units 0 to"):
        explorer.read_unit("0", 99)
    assert explorer.answer() == before


@pytest.mark.parametrize("methods", [["filters"], [3], []])
def test_methods_make_maps(model: vizcnn.Model, image: Tensor, methods: list[Any]) -> None:
    with pytest.raises(ParameterError, match="methods"):
        vizcnn.explore(model, image, methods=methods)


def test_methods_with_options_are_named_by_them(model: vizcnn.Model, image: Tensor) -> None:
    steep = vizcnn.Saliency(method="integrated-gradients")
    assert vizcnn.explore(model, image, methods=["saliency", steep]).methods == (
        "saliency",
        "Saliency(method='integrated-gradients')",
    )


def test_the_network_is_left_as_it_was(image: Tensor) -> None:
    network = small_cnn().train()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    random = torch.get_rng_state()
    explorer = vizcnn.explore(vizcnn.Model(network, size=16), image)
    explorer.cover(1, 1, 5, 5)
    explorer.list_layers()
    explorer.read_unit("0", 0)
    explorer.make_map()
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_answers_are_those_of_the_network_as_it_is_now(model: vizcnn.Model, image: Tensor) -> None:
    explorer = vizcnn.explore(model, image, 0)
    explorer.answer()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.5)
    assert explorer.answer().before == float(_run(model, image)[0])


def test_of_a_black_box_there_are_answers_and_maps_and_no_units(image: Tensor) -> None:
    weights = np.linspace(-1, 1, 3 * 16 * 16 * 4).reshape(-1, 4).astype(np.float32)
    model = vizcnn.Model(lambda images: images.reshape(len(images), -1) @ weights, size=16, head="logits")
    explorer = vizcnn.explore(model, image)
    assert explorer.methods == ("occlusion", "rise")
    assert explorer.list_layers() == {}
    answers = explorer.cover(0, 0, 4, 4)
    assert answers.after is not None
    assert len(answers.classes) == 4


def test_where_no_probabilities_are_known_only_the_score_is_said(image: Tensor) -> None:
    class Maps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.mean(1, keepdim=True), 1 - x.mean(1, keepdim=True)], 1)  # (N, 2, H, W)

    explorer = vizcnn.explore(vizcnn.Model(Maps(), size=16), image, 0)
    answers = explorer.cover(2, 2, 8, 8)
    assert answers.classes == ()
    assert answers.after is not None


def test_images_are_what_a_probe_takes(model: vizcnn.Model, photo_file: Path) -> None:
    batch = picture((16, 16), count=3)
    explorer = vizcnn.explore(model, [str(photo_file), batch], 0)
    assert explorer.names == (str(photo_file), "tensor 0", "tensor 1", "tensor 2")
    explorer.choose_image(2)
    assert torch.equal(explorer.inputs, batch[1])
    explorer.cover(0, 0, 2, 2)
    explorer.choose_image(0)
    assert explorer.boxes == ()
    assert torch.equal(explorer.inputs, model.prepared(vizcnn.open_photo(photo_file))[0])
    alike = vizcnn.explore(model, [batch[0], str(photo_file), batch[1]], 0)
    assert alike.names == ("tensor 0", str(photo_file), "tensor 2"), "each can be told from the others"


def test_of_very_many_images_the_first_can_be_chosen(model: vizcnn.Model, image: Tensor) -> None:
    with pytest.warns(VizcnnWarning, match=f"first {MOST_IMAGES} images"):
        explorer = vizcnn.explore(model, (image for _ in range(MOST_IMAGES + 5)), 0)
    assert len(explorer.names) == MOST_IMAGES
    with pytest.raises(ParameterError, match="no images"):
        vizcnn.explore(model, [])
