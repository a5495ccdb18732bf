"""Segmentation networks and detectors under every kind of probe, against brute force and plain autograd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support import picture
from support_places import (
    COLOURS,
    BlobDetector,
    ColourMaps,
    compute_maps,
    find_blobs,
    model_of,
    overlap,
    paint,
    score_blobs,
)
from torch import Tensor, nn

import vizcnn
from vizcnn.errors import NotDifferentiable, NotInImage, TargetError, VizcnnWarning
from vizcnn.geometry import Box

Pixels = npt.NDArray[np.float64]

SIZE = (24, 24)
PLACES = paint(SIZE, (1, 2, 3, 9, 11, 0.8), (1, 14, 12, 22, 20, 0.9), (2, 3, 15, 9, 22, 0.7))
OTHER = paint(SIZE, (2, 3, 3, 21, 21, 0.62), (1, 5, 5, 9, 9, 0.97))


def cover_tiles(image: Tensor, side: int) -> list[tuple[slice, slice, Pixels]]:
    """The image (C, H, W) with one tile after the other in black, and which tile it is."""
    covered = []
    for top in range(0, image.shape[1], side):
        for left in range(0, image.shape[2], side):
            altered = image.double().numpy().copy()
            rows, columns = slice(top, top + side), slice(left, left + side)
            altered[:, rows, columns] = 0
            covered.append((rows, columns, altered))
    return covered


def occlude_slowly(image: Tensor, side: int, score: Any) -> Pixels:
    """The map of tiles that do not overlap: what covering each costs."""
    values, clean = np.zeros(image.shape[1:]), score(image.double().numpy())
    for rows, columns, altered in cover_tiles(image, side):
        values[rows, columns] = clean - score(altered)
    return values


def occlude(model: vizcnn.Model, images: Any, target: Any, **options: Any) -> vizcnn.Heatmap:
    probe = vizcnn.Occlusion(window=6, stride=6, fill="#000000", **{"engine": "plain", **options})
    return probe(model, images, target, progress=False)


# Segmentation


def mean_over(mask: npt.NDArray[np.bool_], index: int) -> Any:
    return lambda image: compute_maps(image)[index][mask].mean()


def predicted(image: Tensor, index: int) -> npt.NDArray[np.bool_]:
    return np.asarray(compute_maps(image.double().numpy()).argmax(0) == index)


def rectangle(rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("engine", ["plain", "incremental", "auto"])
def test_covering_costs_what_it_takes_from_the_pixels_predicted_in_the_image_as_it_is(engine: str) -> None:
    targets = ["red", "green@5,17", "red@0-11,2-9", 2]
    masks = [
        predicted(PLACES, 1), rectangle(slice(5, 6), slice(17, 18)), rectangle(slice(0, 12), slice(2, 10)),
        predicted(PLACES, 2),
    ]  # fmt: skip
    found = occlude(model_of(ColourMaps()), PLACES, targets, engine=engine)
    for t, (index, mask) in enumerate(zip((1, 2, 1, 2), masks, strict=True)):
        score = mean_over(mask, index)
        assert found.scores[0, t] == pytest.approx(score(PLACES.double().numpy()), rel=1e-5)
        np.testing.assert_allclose(found.values[0, t], occlude_slowly(PLACES, 6, score), atol=1e-5)
    assert engine == "auto" or found.provenance.details["engine"] == engine


def test_a_mask_that_followed_the_covered_image_would_give_another_map() -> None:
    def follow(image: Pixels) -> float:
        maps = compute_maps(image)
        return float(maps[1][maps.argmax(0) == 1].mean())

    found = occlude(model_of(ColourMaps()), PLACES, "red").values[0, 0]
    assert np.abs(found - occlude_slowly(PLACES, 6, follow)).max() > 0.1


def test_images_of_one_call_have_masks_of_their_own_and_get_what_they_get_alone() -> None:
    model, images = model_of(ColourMaps()), torch.stack([PLACES, OTHER, PLACES.flip(2)])
    together = occlude(model, images, ["green", "p(red)"])
    for i in range(3):
        alone = occlude(model, images[i], ["green", "p(red)"])
        np.testing.assert_array_equal(together.scores[i], alone.scores[0])
        np.testing.assert_allclose(together.values[i], alone.values[0], atol=1e-6)
        assert together.scores[i, 0] == pytest.approx(
            mean_over(predicted(images[i], 2), 2)(images[i].double().numpy()), rel=1e-5
        )
    assert together.provenance.target_specs == (("2", "p(1)"),) * 3


def test_without_a_target_the_class_of_most_pixels_is_explained_and_named() -> None:
    found = occlude(model_of(ColourMaps()), torch.stack([PLACES, OTHER]), None)
    assert found.provenance.targets == (("red",), ("green",))
    share = predicted(PLACES, 1).mean()
    assert f"the logit of red over the {100 * share:.2g}% of the image predicted so falls" in found.findings[0][0]
    unnamed = vizcnn.Rise(masks=9)(model_of(make_deep(), labels=None), picture(SIZE), progress=False)
    assert unnamed.provenance.targets == ((str(choose_class(make_deep(), picture(SIZE))[0]),),)


def test_gradients_are_those_of_the_mean_over_the_mask() -> None:
    network = ColourMaps()
    image = PLACES.clone()[None].requires_grad_()
    maps = network(image)[0]  # (K, H, W)
    mask = torch.from_numpy(predicted(PLACES, 1))
    (slopes,) = torch.autograd.grad(maps[1][mask].mean() - 0.5 * maps[2, 3:9, 15:22].mean(), image)
    target = vizcnn.target("red") - 0.5 * vizcnn.target("green@3-8,15-21")
    found = vizcnn.Saliency()(model_of(network), PLACES, target, progress=False)
    np.testing.assert_allclose(found.values[0, 0], slopes[0].abs().amax(0), atol=1e-7)


def make_deep() -> nn.Module:
    """A segmentation network with a layer of half the size, for probes that need depth; random, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"),
        ).eval()  # fmt: skip


def choose_class(network: nn.Module, image: Tensor) -> tuple[int, Tensor]:
    """A class that is predicted at some pixels of the image (1, C, H, W), and where."""
    best = network(image).argmax(1)[0]
    index = int(best.flatten().mode().values)
    return index, best == index


@pytest.mark.parametrize("method", ["gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop"])
def test_the_family_of_saliency_runs_with_the_mask_of_the_image_as_it_is(method: str) -> None:
    network, image = make_deep(), picture(SIZE)
    index, mask = choose_class(network, image)
    own = vizcnn.Saliency(method=method)(model_of(network, labels=None), image, index, progress=False)  # type: ignore[arg-type]
    same = vizcnn.Saliency(method=method)(  # type: ignore[arg-type]
        model_of(network, labels=None), image, lambda output: output[:, index][:, mask].mean(1), progress=False
    )
    np.testing.assert_allclose(own.values, same.values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "layer-cam", "score-cam"])
def test_cam_of_a_class_is_cam_of_the_mean_over_its_mask(method: str) -> None:
    network, image = make_deep(), picture(SIZE)
    index, mask = choose_class(network, image)
    model, cam = model_of(network, labels=None), vizcnn.Cam(method=method, layer="2")  # type: ignore[arg-type]
    own = cam(model, image, index, progress=False)
    same = cam(model, image, lambda output: output[:, index][:, mask].mean(1), progress=False)
    np.testing.assert_allclose(own.values, same.values, rtol=1e-4, atol=1e-7)


def test_rise_and_deconvnet_take_a_class_of_a_segmentation() -> None:
    network, image = make_deep(), picture(SIZE)
    index, mask = choose_class(network, image)
    model = model_of(network, labels=None)

    def score(output: Tensor) -> Tensor:
        return output[:, index][:, mask].mean(1)

    rise = vizcnn.Rise(masks=40)
    np.testing.assert_allclose(
        rise(model, image, index, progress=False).values, rise(model, image, score, progress=False).values, rtol=1e-5
    )
    own, same = (vizcnn.Deconvnet()(model, image, one, progress=False) for one in (index, score))
    assert own.rows[0].panels[0].channels == (index,)
    np.testing.assert_allclose(own.rows[0].panels[0].values, same.rows[0].panels[0].values, rtol=1e-4, atol=1e-7)


def test_maximize_takes_the_mean_over_all_positions_or_the_place_that_is_named() -> None:
    network = make_deep()
    made = vizcnn.Maximize(steps=3)(model_of(network, labels=None), target=[0, "1@2-5,3-9"], progress=False)
    tiles = np.concatenate([panel.values for row in made.rows for panel in row.panels])  # (2, H, W, 3)
    pictures = torch.from_numpy(tiles).permute(0, 3, 1, 2)  # (2, 3, H, W)
    maps = network(pictures)
    expected = [float(maps[0, 0].mean().detach()), float(maps[1, 1, 2:6, 3:10].mean().detach())]
    np.testing.assert_allclose(made.reached, expected, rtol=1e-3)
    usual = vizcnn.Maximize(steps=1)(model_of(network), progress=False)
    assert usual.provenance.targets == (COLOURS,)  # the first ten classes


def test_a_dream_raises_a_class_where_it_is_in_the_photograph_as_the_dream_has_it() -> None:
    painted = paint((56, 80), (1, 6, 58, 34, 74, 0.5)).double()  # the network's own input shows columns 12 to 67
    photo = (painted.permute(1, 2, 0) * 255).byte().numpy()
    found = vizcnn.Dream(octaves=2, steps=3)(model_of(ColourMaps()), photo, "red", progress=False)
    image = np.moveaxis(photo / 255, 2, 0)
    mask = compute_maps(image).argmax(0) == 1
    (scene,) = found.scenes
    both = (image, np.moveaxis(scene.image.astype(np.float64), 2, 0))
    expected = [compute_maps(one)[1][mask].mean() for one in both]
    np.testing.assert_allclose(scene.values["red"], expected, rtol=1e-3)
    grown = scene.image - photo / 255  # (H, W, 3)
    assert grown[8:32, 60:72, 0].min() > 0.01
    assert np.abs(grown[42:, :40]).max() < 1e-6


def test_an_image_without_the_class_is_left_out_and_the_others_stay() -> None:
    model, images = model_of(ColourMaps()), torch.stack([PLACES, paint(SIZE, (2, 3, 3, 9, 9, 0.9)), PLACES])
    with pytest.warns(VizcnnWarning, match=r"1 image was left out.* no pixel of this image is predicted as red: green"):
        found = occlude(model, images, "red")
    assert len(found.photos) == 2
    with pytest.warns(VizcnnWarning, match="1 image was left out"):
        maps = vizcnn.Saliency()(model, images, "red", progress=False)
    np.testing.assert_array_equal(maps.scores, found.scores)
    with pytest.raises(NotInImage, match=r"predicted as blue: red .*%, green .*%, __background__ .*%\. Take one of"):
        occlude(model, PLACES, "blue")
    with pytest.raises(NotInImage, match="predicted as red"):
        vizcnn.Saliency()(model, images, "red", progress=False, strict=True)


class OneMap(nn.Module):
    """How red the 3 x 3 pixels around are, less 0.287: one map for two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = ColourMaps()

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.colours(images)
        return maps[:, 1:2] - 0.287  # (N, 1, H, W)


def test_one_map_tells_two_classes_apart() -> None:
    model = model_of(OneMap(), labels=("background", "lesion"), head="logits")
    maps = compute_maps(PLACES.double().numpy())[1] - 0.287
    inside = maps > 0
    targets = ["lesion", "background", "p(background@0-3,0-3)", "positive@5,6", 0]
    found = occlude(model, PLACES, targets)
    expected = [maps[inside].mean(), -maps[~inside].mean(), 1 - (1 / (1 + np.exp(-maps[:4, :4]))).mean(), maps[5, 6]]
    np.testing.assert_allclose(found.scores[0], [*expected, maps[inside].mean()], rtol=1e-5)
    again = occlude(model, PLACES, list(found.provenance.target_specs[0]))
    np.testing.assert_array_equal(again.values, found.values)
    assert occlude(model, PLACES, None).provenance.targets == (("lesion",),)
    empty = paint(SIZE, (2, 3, 3, 21, 21, 0.62))
    assert vizcnn.Saliency()(model, empty, progress=False).provenance.targets == (("background",),)
    with pytest.raises(
        NotInImage, match=r"predicted as lesion: its only map is from -0.597 to -0.287, with the border at 0"
    ):
        occlude(model, empty, "lesion")


# Detection


def detect(images: Any, target: Any, **options: Any) -> vizcnn.Heatmap:
    return occlude(model_of(BlobDetector()), images, target, **options)


def test_covering_costs_what_it_takes_from_the_box_and_its_confidence() -> None:
    boxes = [((12, 14, 20, 22), 1), ((3, 2, 11, 9), 1), ((15, 3, 22, 9), 2)]
    found = detect(PLACES, ["red#0", "red#1", "2#0"])
    for t, (box, index) in enumerate(boxes):

        def score(image: Pixels, box: Sequence[int] = box, index: int = index) -> float:
            return score_blobs(image, box, index)

        assert found.scores[0, t] == pytest.approx(score(PLACES.double().numpy()), rel=1e-5)
        slow = occlude_slowly(PLACES, 6, score)
        np.testing.assert_allclose(found.values[0, t], slow, atol=1e-6)
        assert slow.any()
    assert found.provenance.targets == (("red#0", "red#1", "green#0"),)
    assert found.provenance.target_specs == (("1#0", "1#1", "2#0"),)
    assert found.meanings == ("detection score lost when covered",) * 3


def test_the_box_is_drawn_named_and_kept(tmp_path: Path) -> None:
    found = detect(torch.stack([PLACES, OTHER]), "red#0")
    marks = [row[0] for row in found.target_marks]
    assert [mark and (mark.box, mark.text) for mark in marks] == [
        (Box(14, 12, 22, 20), "the box of red#0"), (Box(5, 5, 9, 9), "the box of red#0"),
    ]  # fmt: skip
    assert "detection score of red#0 in the lower right (x 12-20, y 14-22 px) falls by" in found.findings[0][0]
    assert [one["target_box_top"] for one in found.records()] == [14, 5]
    opened = vizcnn.load_result(found.save(tmp_path / "map.npz"))
    assert isinstance(opened, vizcnn.Heatmap)
    assert opened.target_marks == found.target_marks
    assert opened.select([1]).target_marks == found.target_marks[1:]
    labels = " ".join(text.get_text() for text in found.figure().findobj() if hasattr(text, "get_text"))
    assert "dotted: the box of red#0" in labels
    assert "dotted" not in occlude(model_of(ColourMaps()), PLACES, "red").describe()


def test_a_function_that_finds_boxes_is_explained_as_a_network_is() -> None:
    def ask(images: Any) -> list[dict[str, Any]]:
        found = BlobDetector()(torch.from_numpy(images))
        return [{key: value.numpy() for key, value in one.items()} for one in found]

    right, same = (occlude(model_of(each), PLACES, "green#0") for each in (BlobDetector(), ask))
    np.testing.assert_array_equal(same.values, right.values)
    assert same.target_marks == right.target_marks


def test_rise_explains_a_box() -> None:
    rise = vizcnn.Rise(masks=60, grid=4, fill="#000000")
    found = rise(model_of(BlobDetector()), PLACES, "green#0", progress=False)
    box = (15, 3, 22, 9)

    def score(raw: list[dict[str, Tensor]]) -> Tensor:
        rows = []
        for one in raw:
            kept = [
                (b, s) for b, label, s in zip(one["boxes"], one["labels"], one["scores"], strict=True) if label == 2
            ]
            rows.append(max((overlap(b.tolist(), box) * float(s) for b, s in kept), default=0.0))
        return torch.tensor(rows)

    same = rise(model_of(BlobDetector()), PLACES, score, progress=False)
    np.testing.assert_allclose(found.values, same.values, rtol=1e-4, atol=1e-6)
    assert found.target_marks[0][0] is not None
    assert same.target_marks == ()


def test_without_a_target_the_box_of_which_the_network_is_most_sure_is_explained() -> None:
    found = detect(torch.stack([PLACES, OTHER.flip(0)]), None)
    best = [max(find_blobs(image.double().numpy()), key=lambda one: one[2]) for image in (PLACES, OTHER.flip(0))]
    assert found.provenance.targets == tuple((f"{COLOURS[index]}#0",) for _, index, _ in best)
    np.testing.assert_allclose(found.scores[:, 0], [score for _, _, score in best], rtol=1e-5)


def test_an_image_without_the_box_is_left_out_and_the_others_stay() -> None:
    with pytest.warns(VizcnnWarning, match=r"1 image was left out.*red#1 is not in this image, only 1 of them"):
        found = detect(torch.stack([OTHER, PLACES]), "red#1")
    assert len(found.photos) == 1
    with pytest.raises(NotInImage, match=r"no box of blue\. Found: red 0\.9 \(2 boxes\), green 0\.7"):
        detect(PLACES, "blue#0")
    with pytest.raises(NotInImage, match="the network finds no box in this image"):
        detect(torch.zeros(3, *SIZE), None)


REFUSED = "no gradient: boxes are chosen by a sort and by non-maximum suppression, .* Use occlusion or rise"


@pytest.mark.parametrize(
    "probe", [vizcnn.Saliency(), vizcnn.Saliency(method="smoothgrad"), vizcnn.Deconvnet(), vizcnn.Dream()]
)
@pytest.mark.parametrize("target", ["red#0", vizcnn.target("red#0") - vizcnn.target("green#0")])
def test_probes_of_gradients_say_why_they_cannot(probe: Any, target: Any) -> None:
    with pytest.raises(NotDifferentiable, match=REFUSED):
        probe(model_of(BlobDetector()), PLACES, target, progress=False)


def test_maximize_and_other_targets_of_a_detector_are_refused_in_one_line() -> None:
    model = model_of(BlobDetector())
    with pytest.raises(TargetError, match="found in an image, and here is none. Use occlusion or rise"):
        vizcnn.Maximize()(model, target="red#0", progress=False)
    with pytest.raises(TargetError, match="red is a class, and the network returns boxes. Give red#0 for its best box"):
        detect(PLACES, "red")
