from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import small_cnn

import vizcnn
from vizcnn.errors import LayerNotFound, TargetError
from vizcnn.models.layers.capture import read_activations
from vizcnn.models.targets import OUTPUT, expand_target, parse_targets, target
from vizcnn.models.terms import Unit


def test_strings_numbers_and_functions_parse_to_the_same_objects() -> None:
    assert target(281) == target("281")
    assert target("fc:3").terms == ((1.0, Unit("fc", 3)),)
    assert target("layer4.1.conv2:17@3,4").terms == ((1.0, Unit("layer4.1.conv2", 17, (3, 4))),)
    assert target("p(tabby)").terms == ((1.0, Unit(OUTPUT, "tabby", probability=True)),)
    assert target(target("tabby")) == target("tabby")


@pytest.mark.parametrize(
    "number", [np.int64(7), np.array(7), np.array([7], np.uint8), torch.tensor(7), torch.tensor([[7]])], ids=repr
)
def test_arrays_and_tensors_of_one_whole_number_are_the_class_of_that_index(number: Any) -> None:
    assert target(number) == target(7)
    assert parse_targets([number, "fc:3"]) == (target(7), target("fc:3"))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.arange(1000), "ndarray (1000,) of int64"),
        (np.array(2.5), "ndarray () of float64"),
        (np.float32(1), "float32 () of float32"),
        (np.bool_(True), "() of bool"),
        (torch.tensor(True), "Tensor () of torch.bool"),
        (torch.eye(9), "Tensor (9, 9) of torch.float32"),
        (torch.tensor([], dtype=torch.int64), "Tensor (0,) of torch.int64"),
        (np.array("tabby"), "ndarray () of <U5"),
    ],
    ids=str,
)
def test_other_arrays_and_tensors_are_refused_in_one_line(array: Any, said: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_targets(array)
    assert said in str(caught.value)
    assert "For several targets give a list" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_out_of_an_array_is_text() -> None:
    assert target(np.array(["tabby"])[0]) == target("tabby")


def test_class_names_become_numbers_when_a_model_is_known(tiny: vizcnn.Model) -> None:
    resolved = target("Military uniform").resolved(tiny)
    assert resolved == target(tiny.class_index("military uniform")).resolved(tiny)
    assert str(resolved) == "military uniform"
    assert str(target("p(lemon)").resolved(tiny)) == "p(lemon)"


def test_values() -> None:
    logits, maps = torch.tensor([[1.0, 2.0, 4.0]]), torch.arange(12.0).view(1, 3, 2, 2)
    known: dict[str, Any] = {OUTPUT: logits, "conv": maps}
    assert target(2)(known).tolist() == [4]
    assert target("conv:1")(known).tolist() == [5.5]
    assert target("conv:1@1,0")(known).tolist() == [6]
    assert target("p(2)")(known).item() == pytest.approx(logits.softmax(1)[0, 2].item())
    assert target(lambda output: output.sum(1))(known).tolist() == [7]


def test_the_strongest_unit_is_each_images_own() -> None:
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, 2, 1, 4], maps[1, 0, 3, 0] = 7, 9
    strongest = target("strongest(conv)")
    assert strongest({"conv": maps}).tolist() == [7, 9]
    assert [str(one) for one in strongest.choose({"conv": maps}, 2)] == ["conv:2@1,4", "conv:0@3,0"]
    mixed = 2 * strongest - target("conv:1")
    assert [str(one) for one in mixed.choose({"conv": maps}, 2)] == [
        "2 * conv:2@1,4 - conv:1",
        "2 * conv:0@3,0 - conv:1",
    ]
    plain = target("conv:1")
    assert all(one is plain for one in plain.choose({"conv": maps}, 2))
    with pytest.raises(TargetError, match=r"layer 'fc' is \(2, 3\), and only maps .* have units at positions"):
        target("strongest(fc)")({"fc": torch.zeros(2, 3)})
    with pytest.raises(TargetError, match=r"p\(...\) is for classes"):
        target("p(strongest(conv))")


def test_targets_add_subtract_and_scale() -> None:
    both = 0.5 * target(2) - target("conv:0") + -target(0)
    known: dict[str, Any] = {OUTPUT: torch.tensor([[1.0, 0.0, 4.0]]), "conv": torch.full((1, 1, 2, 2), 10.0)}
    assert both(known).tolist() == [2 - 10 - 1]
    assert str(both) == "0.5 * 2 - conv:0 - 0"
    assert both.layers == {OUTPUT, "conv"}


def test_what_has_no_number_per_image_is_refused() -> None:
    logits = torch.zeros(1, 3)
    for spec, values, message in (
        (7, logits, "the network's output has channels 0 to 2, got 7"),
        ("1", torch.zeros(1, 3, 4), r"is \(1, 3, 4\), not \(N, C\) or \(N, C, H, W\)"),
        ("1", {"out": logits}, "is dict, not .* Give a function of it as the target"),
    ):
        with pytest.raises(TargetError, match=message):
            target(spec)({OUTPUT: values})
    with pytest.raises(TargetError, match="layer 'fc' is .* and has no positions, got @0,0"):
        target("fc:0@0,0")({"fc": logits})
    with pytest.raises(TargetError, match="layer 'conv' is 4 x 5, got position 4,0"):
        target("conv:0@4,0")({"conv": torch.zeros(1, 2, 4, 5)})
    with pytest.raises(TargetError, match=r"must return one number per image, a tensor \(N,\), got \(1, 3\)"):
        target(lambda output: output)({OUTPUT: logits})


@pytest.mark.parametrize("what", [None, 2.5, True, -1, "-4"])
def test_what_is_no_target_at_all(what: object) -> None:
    with pytest.raises(TargetError):
        target(what)


def test_a_layer_that_does_not_exist(tiny: vizcnn.Model) -> None:
    for text in ("layr1:0", "strongest(layr1)"):
        with pytest.raises(LayerNotFound, match="Did you mean 'layer1'"):
            target(text).resolved(tiny)
    with pytest.raises(TargetError, match=r"p\(...\) is for classes"):
        target("p(layer1:0)")


def test_probabilities_are_not_made_from_probabilities() -> None:
    already = torch.tensor([[0.25, 0.75]])
    assert target("p(1)")({OUTPUT: already}).item() == 0.75
    with pytest.raises(TargetError, match="nothing shows that the network's outputs are logits or probabilities"):
        target("p(1)")({OUTPUT: torch.tensor([[0.5, 0.9]])})


def test_classes_that_are_named_by_numbers() -> None:
    """As a folder of classes gives them: '1', '10', '11', '2', ...: the class named 10 is number 1."""
    names = sorted(str(i) for i in range(1, 13))
    model = vizcnn.Model(small_cnn(classes=12), size=8, labels=names)
    for ambiguous in ("10", "p(10)"):
        with pytest.raises(TargetError, match=r"'10' names class number 1 .* Give '#10' for number 10, or '=10' for"):
            target(ambiguous).resolved(model)
    for text, number, name in (("#10", 10, "8"), ("=10", 1, "10"), ("0", 0, "1"), ("p(=12)", 3, "12")):
        ((_, unit),) = target(text).resolved(model).terms
        assert isinstance(unit, Unit)
        assert (unit.channel, unit.label) == (number, name)
        ((_, again),) = target(unit.spec).resolved(model).terms
        assert again == unit  # what provenance keeps means the same when it is read again
    assert str(target(10).resolved(model)) == "8"  # a number in Python is the number
    with pytest.raises(TargetError, match="no class or layer target named '=13'"):
        target("=13").resolved(model)
    plain = vizcnn.Model(small_cnn(), size=8, labels=list("abcd4"))
    assert str(target("4").resolved(plain)) == "4"
    assert target("3").resolved(plain).spec == "3"


def test_numbers_that_only_a_name_can_be() -> None:
    padded = vizcnn.Model(small_cnn(), size=8, labels=["01", "02", "03", "04", "05"])
    years = vizcnn.Model(small_cnn(), size=8, labels=["1980", "1990", "2000", "2010", "5"])
    for model, text, number in ((padded, "02", 1), (padded, "p(05)", 4), (years, "1990", 1), (years, "5", 4)):
        ((_, unit),) = target(text).resolved(model).terms
        assert isinstance(unit, Unit)
        assert (unit.channel, unit.label) == (number, text.strip("p()"))
    assert str(target("3").resolved(padded)) == "04"
    for text in ("002", "\N{ARABIC-INDIC DIGIT THREE}", "1" * 5000, "features:" + "1" * 5000):
        with pytest.raises(TargetError, match="no class or layer target named"):
            target(text).resolved(padded)


def test_captured_layers_are_not_overwritten_by_in_place_operations() -> None:
    model = vizcnn.Model(small_cnn(), size=8)
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        seen = read_activations(model, images, ["0", OUTPUT])
        expected = next(model.network.children())(images)
    assert seen["0"].min() < 0
    torch.testing.assert_close(seen["0"], expected)
    assert seen[OUTPUT].shape == (2, 5)


def test_hooks_are_gone_after_a_capture_that_fails() -> None:
    model = vizcnn.Model(small_cnn(), size=8)
    with pytest.raises(RuntimeError):
        read_activations(model, torch.rand(1, 3, 1, 1), ["0", "3"])
    assert not any(m._forward_hooks for m in model.network.modules())


def test_energy_is_the_mean_square_of_a_layer() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = [sum(float(x) ** 2 for x in one.flatten()) / 60 for one in maps]
    assert target("energy(conv)")({"conv": maps}).tolist() == pytest.approx(expected, rel=1e-5)
    assert target("energy(fc)")({"fc": torch.tensor([[3.0, 4.0]])}).tolist() == [12.5]


def test_energy_is_a_target_like_others(tiny: vizcnn.Model) -> None:
    whole = target("energy(layer1.0.conv1)").resolved(tiny)
    assert str(whole) == whole.spec == "energy(layer1.0.conv1)"
    assert target(str(whole)) == whole
    assert whole.layers == {"layer1.0.conv1"}
    assert whole.quantity == "energy"
    assert str(0.5 * whole - target("fc:1")) == "0.5 * energy(layer1.0.conv1) - fc:1"
    with pytest.raises(LayerNotFound, match="Did you mean 'layer1'"):
        target("energy(layr1)").resolved(tiny)
    with pytest.raises(TargetError, match=r"p\(...\) is for classes"):
        target("p(energy(layer1))")
    with pytest.raises(TargetError, match="gives no tensor"):
        target("energy(a)")({"a": [1, 2]})


def test_a_direction_is_the_product_with_a_vector() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    along = vizcnn.direction("conv", [1, -2.0, 0.5])
    expected = [float(one[0].mean() - 2 * one[1].mean() + 0.5 * one[2].mean()) for one in maps]
    assert along({"conv": maps}).tolist() == pytest.approx(expected, rel=1e-5)
    assert vizcnn.direction("fc", [2, 3])({"fc": torch.tensor([[1.0, 10.0]])}).tolist() == [32]
    assert along.layers == {"conv"}
    assert along.spec == "direction(conv, [1.0, -2.0, 0.5])"


def test_directions_are_told_apart_and_must_fit(tiny: vizcnn.Model) -> None:
    one, other = vizcnn.direction("conv1", [1, 2]), vizcnn.direction("conv1", [1, 3])
    assert str(one) != str(other)
    assert str(one) == str(vizcnn.direction("conv1", [1.0, 2.0]))
    with pytest.raises(TargetError, match=r"layer 'conv1' is \(1, 3, 2, 2\), a direction of 2 numbers does not fit"):
        one({"conv1": torch.zeros(1, 3, 2, 2)})
    with pytest.raises(LayerNotFound, match="no layer named 'nowhere'"):
        vizcnn.direction("nowhere", [1]).resolved(tiny)


def test_a_span_is_a_target_for_every_channel() -> None:
    assert expand_target("layer2.0.conv1:0-3") == tuple(target(f"layer2.0.conv1:{i}") for i in range(4))
    assert expand_target(" fc:7-7 ") == (target("fc:7"),)
    assert expand_target("fc:7") == (target("fc:7"),)
    assert expand_target("p(cat-like)") == (target("p(cat-like)"),)
    assert expand_target(3) == (target(3),)
    with pytest.raises(TargetError, match="from the lower to the higher, got 'fc:3-1'"):
        expand_target("fc:3-1")


def test_every_probe_takes_spans() -> None:
    model, image = vizcnn.Model(small_cnn(), size=8), torch.rand(3, 8, 8)
    whole = vizcnn.Saliency()(model, image, ["3:1-3", 0])
    assert whole.provenance.targets == (("3:1", "3:2", "3:3", "0"),)
    assert whole.values.shape == (1, 4, 8, 8)
