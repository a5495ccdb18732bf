"""Targets of detectors: a box of the clean image, and how much like it the best box of an altered image is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support_places import COLOURS, BlobDetector, ColourMaps, find_blobs, model_of, paint, score_blobs

from vizcnn.errors import NotInImage, TargetError
from vizcnn.geometry import Box
from vizcnn.models.detection import BestBox, FoundBox, is_detections, measure_overlap, read_detections
from vizcnn.models.functions import RAW
from vizcnn.models.targets import OUTPUT, Target, target
from vizcnn.models.terms import Unit

IMAGE = paint((20, 24), (1, 2, 3, 8, 11, 0.8), (1, 12, 14, 19, 20, 0.9), (2, 1, 15, 6, 22, 0.7))


def resolve(text: Any, labels: tuple[str, ...] | None = COLOURS) -> Target:
    return target(text).resolved(model_of(BlobDetector(), labels=labels))


def find(*images: torch.Tensor) -> dict[str, Any]:
    """What the detector returns for these images, as a target reads it."""
    return {RAW: BlobDetector()(torch.stack(images)), OUTPUT: None}


def test_texts_name_a_box_of_a_class() -> None:
    assert resolve("red#1").terms == ((1.0, BestBox(Unit(OUTPUT, 1, label="red"), 1)),)
    assert resolve("red#1") == resolve("1#1") == resolve("#1#1") == resolve("Red#1") == resolve("=red#1")
    assert (str(resolve("1#0")), resolve("red#0").spec) == ("red#0", "1#0")
    assert (str(resolve("1#0", None)), resolve("#0#1", ("0", "a")).spec) == ("1#0", "0#1")
    assert resolve("#1#0", ("a", "0", "1")).spec == "#1#0"  # 1 is also the name of another class
    assert target("#10") == target(10)


def test_the_probability_of_a_box_is_refused_with_the_remedy() -> None:
    with pytest.raises(TargetError, match=r"is from 0 to 1 already: give dog#0"):
        target("p(dog#0)")


def test_each_image_chooses_its_own_box_the_most_confident_first() -> None:
    other = paint((20, 24), (1, 5, 5, 9, 9, 0.6))
    (one, two) = resolve("red#0").choose(find(IMAGE, other), 2)
    assert (one.box, two.box) == (Box(12, 14, 19, 20), Box(5, 5, 9, 9))
    (second,) = resolve("red#1").choose(find(IMAGE), 1)
    assert second.box == Box(2, 3, 8, 11)
    assert (str(second), second.spec, second.quantity) == ("red#1", "1#1", "detection score")


def test_the_score_is_the_largest_product_of_overlap_and_confidence() -> None:
    rng = np.random.default_rng(0)
    chosen = [resolve(text).choose(find(IMAGE), 1)[0] for text in ("red#0", "red#1", "green#0")]
    boxes = [((14, 12, 20, 19), 1), ((3, 2, 11, 8), 1), ((15, 1, 22, 6), 2)]
    images = [IMAGE]
    for _ in range(30):
        top, left = rng.integers(0, 14), rng.integers(0, 16)
        images.append(IMAGE.clone())
        images[-1][:, top : top + 8, left : left + 8] = float(rng.choice([0, 0.5]))
    for own, (box, index) in zip(chosen, boxes, strict=True):
        slow = [score_blobs(image.double().numpy(), box, index) for image in images]
        np.testing.assert_allclose(own(find(*images)), slow, rtol=1e-5, atol=1e-7)
        assert len(set(slow)) > 3


def test_without_a_box_of_the_class_the_score_is_zero() -> None:
    (own,) = resolve("green#0").choose(find(IMAGE), 1)
    assert own(find(IMAGE, torch.zeros_like(IMAGE), paint((20, 24), (1, 1, 15, 6, 22, 0.7)))).tolist() == [
        pytest.approx(0.7),
        0,
        0,
    ]


def test_overlap_is_of_any_boxes() -> None:
    box = torch.tensor([0.0, 0, 4, 2])
    others = torch.tensor([[0.0, 0, 4, 2], [2, 0, 4, 2], [4, 0, 8, 2], [1, 1, 1, 1], [2, -2, 6, 1]])
    assert measure_overlap(box, others).tolist() == pytest.approx([1, 0.5, 0, 0, 2 / 18])
    assert measure_overlap(box * 0, others[:0]).shape == (0,)
    assert measure_overlap(box * 0, box[None] * 0).tolist() == [0]


def test_a_class_that_is_not_found_is_refused_with_what_is() -> None:
    with pytest.raises(
        NotInImage, match=r"blue#0 is not in this image, no box of blue\. Found: red 0\.9 \(2 boxes\), g"
    ):
        resolve("blue#0").choose(find(IMAGE), 1, name_class=COLOURS.__getitem__)
    with pytest.raises(
        NotInImage, match=r"red#2 is not in this image, only 2 of them\. Found: red 0\.9 \(2 boxes\), gr"
    ):
        resolve("red#2").choose(find(IMAGE), 1, name_class=COLOURS.__getitem__)
    with pytest.raises(NotInImage, match="Found: nothing"):
        resolve("red#0").choose(find(torch.zeros_like(IMAGE)), 1)


def test_a_class_of_a_detector_is_asked_for_by_its_best_box() -> None:
    for text in ("red", "p(red)", "#1@2,3"):
        with pytest.raises(TargetError, match="the network returns boxes. Give red.*#0 for its best box"):
            resolve(text).choose(find(IMAGE), 1)


def test_a_box_of_a_network_without_boxes_is_refused() -> None:
    maps = ColourMaps()(IMAGE[None])
    with pytest.raises(TargetError, match=r"for each image, but a tensor \(1, 4, 20, 24\)"):
        resolve("red#0").choose({OUTPUT: maps, RAW: maps}, 1)


def test_a_box_without_an_image_is_refused_with_the_remedy() -> None:
    with pytest.raises(TargetError, match="found in an image, and here is none. Use occlusion or rise"):
        resolve("red#0")(find(IMAGE))


def test_what_is_no_list_of_boxes_is_told_from_one() -> None:
    boxes = BlobDetector()(IMAGE[None])
    assert is_detections(boxes)
    assert is_detections(tuple(boxes))
    assert not any(map(is_detections, ([], boxes[0], [{"boxes": 1}], torch.zeros(2, 3), [torch.zeros(2)])))
    with pytest.raises(TargetError, match="returns 1 lists of boxes for 2 images"):
        read_detections(boxes, 2)
    with pytest.raises(TargetError, match=r"got \(2, 5\), \(2,\), \(2,\)"):
        read_detections([{"boxes": torch.zeros(2, 5), "labels": torch.zeros(2), "scores": torch.zeros(2)}], 1)


def test_equal_confidences_are_taken_in_the_networks_order() -> None:
    assert [box for box, _, _ in find_blobs(IMAGE.double().numpy())][:2] == [(3, 2, 11, 8), (14, 12, 20, 19)]
    same = paint((20, 24), (1, 2, 3, 8, 11, 0.5), (1, 12, 14, 19, 20, 0.5))
    (own,) = resolve("red#0").choose(find(same), 1)
    assert own.box == Box(2, 3, 8, 11)
    assert isinstance(own.terms[0][1], FoundBox)
