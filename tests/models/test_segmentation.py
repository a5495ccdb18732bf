"""Targets of segmentation networks: a class over the pixels predicted so, one pixel, or a region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import noise
from support_places import COLOURS, ColourMaps, model_of

import vizcnn
from vizcnn.errors import NotInImage, TargetError
from vizcnn.models.head import Head
from vizcnn.models.segmentation import PredictedArea, Rectangle, choose_largest, find_predicted
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.models.terms import Unit

MAPS = noise(2, 4, 6, 5)  # (N, K, H, W)


def resolve(text: Any, labels: tuple[str, ...] | None = COLOURS) -> Target:
    return target(text).resolved(model_of(ColourMaps(), labels=labels))


def test_texts_name_a_pixel_or_a_region_of_a_class() -> None:
    assert resolve("green@3,4").terms == ((1.0, Unit(OUTPUT, 2, (3, 4), label="green")),)
    assert resolve("2@3,4") == resolve("#2@3,4") == resolve("=green@3,4") == resolve("Green@3,4")
    assert resolve("green@3-5,0-4").terms[0][1] == Unit(OUTPUT, 2, label="green", over=Rectangle((3, 5), (0, 4)))
    assert resolve("green@3,0-4") == resolve("green@3-3,0-4")
    assert target("conv:2@1-2,3-3").terms[0][1] == Unit("conv", 2, over=Rectangle((1, 2), (3, 3)))
    assert [str(resolve(text)) for text in ("2@3,4", "p(2@3-5,0-4)")] == ["green@3,4", "p(green@3-5,0-4)"]
    assert [resolve(text).spec for text in ("green@3,4", "p(green@3-5,0-4)")] == ["2@3,4", "p(2@3-5,0-4)"]
    assert str(resolve("2@3,4", None)) == "2@3,4"


def test_a_pixel_and_a_region_are_rows_and_columns_of_the_output_with_both_ends() -> None:
    found = {OUTPUT: MAPS}
    np.testing.assert_allclose(target("2@3,4")(found), MAPS[:, 2, 3, 4])
    np.testing.assert_allclose(target("2@3-5,0-4")(found), MAPS[:, 2, 3:6, 0:5].mean((1, 2)))
    np.testing.assert_allclose(target("conv:2@0-0,1-2")({"conv": MAPS}), MAPS[:, 2, 0, 1:3].mean(1))
    chance = MAPS.softmax(1)[:, 2, 3:6, 0:5].mean((1, 2))  # the mean probability, not that of the mean logit
    np.testing.assert_allclose(target("p(2@3-5,0-4)").with_head("logits")(found), chance)


@pytest.mark.parametrize("text", ["2@6,0", "2@0,5", "2@0-6,0-1", "2@0-1,0-5"])
def test_what_lies_outside_the_output_is_refused_with_its_size(text: str) -> None:
    with pytest.raises(TargetError, match=r"6 x 5|rows 0 to 5 and columns 0 to 4"):
        target(text)({OUTPUT: MAPS})


def test_a_region_goes_from_the_lower_to_the_higher() -> None:
    for text in ("dog@5-3,0-4", "dog@3-5,4-0"):
        with pytest.raises(TargetError, match=f"first and last included, got '{text}'"):
            target(text)


def test_an_output_without_positions_has_no_pixels() -> None:
    with pytest.raises(TargetError, match=r"\(2, 4\) and has no positions, got @1-2,0-3"):
        target("2@1-2,0-3")({OUTPUT: noise(2, 4)})


def test_names_with_signs_in_them_stay_usable() -> None:
    labels = ("dog", "dog@1,2", "cat@3,4", "dog#0", "F#1")
    assert resolve("cat@3,4", labels).terms[0][1] == Unit(OUTPUT, 2, label="cat@3,4")
    assert resolve("F#1", labels).terms[0][1] == Unit(OUTPUT, 4, label="F#1")
    assert resolve("=dog@1,2", labels).terms[0][1] == Unit(OUTPUT, 1, label="dog@1,2")
    assert resolve("p(=dog@1,2)", labels).terms[0][1] == Unit(OUTPUT, 1, probability=True, label="dog@1,2")
    assert resolve("=dog#0", labels).terms[0][1] == Unit(OUTPUT, 3, label="dog#0")
    assert resolve("dog@1,3", labels).terms[0][1] == Unit(OUTPUT, 0, (1, 3), label="dog")
    assert resolve("=dog@1,2@1,3", labels).terms[0][1] == Unit(OUTPUT, 1, (1, 3), label="dog@1,2")
    assert resolve("#0@1,2", labels).terms[0][1] == Unit(OUTPUT, 0, (1, 2), label="dog")
    for text, other in (("dog@1,2", "#0@1,2"), ("dog#0", "#0#0")):
        with pytest.raises(TargetError, match=f"Give '={text}' for the class of this name, or '{other}'"):
            resolve(text, labels)


def test_a_spec_stands_for_its_own_target_whatever_the_names() -> None:
    for labels in (COLOURS, ("0@1,2", "a", "1@1,2", "0"), ("1#0", "0#0", "#1"), ("1", "0")):
        for text in ("#0", "#1", "#0@1,2", "#1@1,2", "p(#1@1-2,0-3)", "#1#0"):
            one = resolve(text, labels)
            assert resolve(one.spec, labels) == one


@pytest.mark.parametrize("head", ["logits", "softmax", "sigmoid", "sigmoid-logits"])
def test_predicted_pixels_are_the_largest_class_or_the_more_likely_label(head: Head) -> None:
    maps = {"softmax": MAPS.softmax(1), "sigmoid": MAPS.sigmoid()}.get(head, MAPS)
    for index in range(4):
        slow = np.zeros((2, 6, 5), bool)
        for i, y, x in np.ndindex(slow.shape):
            logits = MAPS[i, :, y, x].tolist()
            slow[i, y, x] = logits[index] > 0 if "sigmoid" in head else logits.index(max(logits)) == index
        np.testing.assert_array_equal(find_predicted(maps, index, head), slow)


def test_of_a_single_map_the_pixels_above_zero_or_one_half_are_predicted() -> None:
    np.testing.assert_array_equal(find_predicted(MAPS[:, :1], 0, "logits"), MAPS[:, 0] > 0)
    np.testing.assert_array_equal(find_predicted(MAPS[:, :1].sigmoid(), 0, "sigmoid"), MAPS[:, 0] > 0)


def test_a_class_is_the_mean_over_the_pixels_predicted_so_which_stay() -> None:
    one = target(2)
    chosen = one.choose({OUTPUT: MAPS}, 2)
    other = noise(2, 4, 6, 5, seed=1)
    for i, own in enumerate(chosen):
        mask = (MAPS[i].argmax(0) == 2).numpy()
        assert 0 < mask.sum() < mask.size
        for maps in (MAPS, other):  # the mask is the first maps', whatever the second are
            assert own({OUTPUT: maps})[i] == pytest.approx(maps[i, 2].numpy()[mask].mean())
        assert (str(own), own.spec, own.quantity) == ("2", "2", "logit")
    np.testing.assert_allclose(one({OUTPUT: MAPS}), MAPS[:, 2].mean((1, 2)))  # without an image: all positions


def test_probabilities_sums_and_differences_choose_too() -> None:
    (chosen, _) = (target("p(2)").with_head("logits") - 0.5 * target(1)).choose({OUTPUT: MAPS}, 2)
    best = MAPS[0].argmax(0)
    expected = MAPS[0].softmax(0)[2][best == 2].mean() - 0.5 * MAPS[0, 1][best == 1].mean()
    assert float(chosen({OUTPUT: MAPS})[0]) == pytest.approx(float(expected))


def test_places_and_classes_of_plain_outputs_are_the_same_for_all_images() -> None:
    for text, output in (("2@1,2", MAPS), ("2@1-2,0-3", MAPS), ("2", noise(2, 4))):
        one = target(text)
        assert all(own is one for own in one.choose({OUTPUT: output}, 2))


def test_a_mask_is_read_at_the_same_share_of_maps_of_another_size() -> None:
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[2:4, 1:3] = True
    area = PredictedArea(mask.flatten().nonzero()[:, 0].int(), (6, 4))
    large = noise(1, 3, 12, 8)
    np.testing.assert_allclose(area.pick(large).mean(2), large[:, :, 4:8, 2:6].mean((2, 3)))
    assert area.pick(noise(1, 3, 1, 1)).shape == (1, 3, 1)  # never empty


def test_a_class_predicted_nowhere_is_refused_with_what_is_and_the_remedy() -> None:
    maps = torch.zeros(1, 4, 4, 5)
    maps[:, 0], maps[:, 1, :1] = 1, 2
    names = ("__background__", "dog", "cat", "bird")
    with pytest.raises(NotInImage) as caught:
        resolve("cat", names).choose({OUTPUT: maps}, 1, "logits", names.__getitem__)
    assert str(caught.value) == (
        "no pixel of this image is predicted as cat: dog 25%, __background__ 75%. Take one of these, or a place: "
        "cat@Y,X or cat@Y0-Y1,X0-X1, counted in the output's 4 rows and 5 columns"
    )
    with pytest.raises(
        NotInImage, match=r"as 0: none is predicted as anything\. Take another image, or a place: 0@Y,X"
    ):
        target("p(0)").choose({OUTPUT: maps - 5}, 1, "sigmoid-logits")
    with pytest.raises(NotInImage, match=r"as 0: its only map is from -4 to -4, with the border at 0\. Take another"):
        target("0").choose({OUTPUT: maps[:, :1] - 5}, 1, "logits")


def test_the_largest_class_is_the_one_of_most_pixels_but_for_the_background() -> None:
    maps = F.one_hot(torch.tensor([[[0, 0, 0, 2], [0, 2, 1, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]]), 3).permute(0, 3, 1, 2)
    assert choose_largest(maps.double(), "logits", ("background", "a", "b").__getitem__) == [2, 0]
    assert choose_largest(maps.double(), "logits", str) == [0, 0]
    assert choose_largest(maps.double() - 0.5, "sigmoid-logits", ("BACKGROUND", "a", "b").__getitem__) == [2, 0]


def test_the_mask_of_an_empty_line_of_images_is_none() -> None:
    assert target(2).choose({OUTPUT: MAPS[:0]}, 0) == []


def test_errors_name_the_class_for_a_network_without_labels() -> None:
    with pytest.raises(TargetError, match="has channels 0 to 3, got 7"):
        vizcnn.target(7).choose({OUTPUT: MAPS}, 2)
