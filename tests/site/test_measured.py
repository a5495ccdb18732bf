"""The records of an atlas, measured on networks, against what plain hooks and plain counting say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import picture
from support_sites import Undecided, make_varied
from torch import Tensor, nn
from torch.utils.data import Dataset

import vizcnn
from vizcnn.anatomy.keeping import Keeper
from vizcnn.ascent import RECIPES
from vizcnn.errors import DegenerateResult, ParameterError
from vizcnn.graph.sites import find_sites
from vizcnn.results import Heatmap
from vizcnn.scanning import Index, Study, scan
from vizcnn.site.records import ByHand, Effect, Histogram, MapOf, Missing, Picture, Records
from vizcnn.site.study import maps
from vizcnn.site.study.layers import measure_selectivity
from vizcnn.site.study.material import Material, Plan
from vizcnn.site.study.measured import Measured, list_readings, measure

COUNT = 24
PLAN = Plan(
    title="an atlas",
    data="pictures",
    made="2026-11-27",
    pictures=("stem", "fc2"),
    recipe=replace(RECIPES["lucid"], steps=2),
    effects=30,
    link_images=8,
    by_hand=("stem", "block2.conv2", "fc1", "fc2"),
    hand_images=2,
    pages=3,
)


class Labelled(Dataset[tuple[Tensor, int]]):
    """Pictures, each with the answer of a network as its label, and a few with another."""

    classes = ("ant", "bee", "cat", "dog", "elk")

    def __init__(self, model: vizcnn.Model, images: Tensor) -> None:
        self.images = images
        with torch.no_grad():
            self.labels = model(images.to(model.dtype)).argmax(1)
        self.labels[::6] = (self.labels[::6] + 1) % 5

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i], int(self.labels[i])


@pytest.fixture(scope="module")
def model() -> vizcnn.Model:
    model = make_varied()
    model.network.float()
    model.labels = Labelled.classes
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return picture((40, 32), count=COUNT)


@pytest.fixture(scope="module")
def index(model: vizcnn.Model, images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Index:
    layers = list_readings(find_sites(model))
    folder = tmp_path_factory.mktemp("atlas") / "index"
    return scan(
        model, Labelled(model, images), folder, layers=layers, study=Study(), loaders=0, threads=1, progress=False
    )


@pytest.fixture(scope="module")
def records(model: vizcnn.Model, index: Index) -> Measured:
    return measure(model, find_sites(model), index, PLAN)


def number(records: Records, name: str) -> int:
    return next(i for i, layer in enumerate(records.network.layers) if layer.name == name)


def read(model: vizcnn.Model, records: Records, i: int, images: Tensor) -> Tensor:
    """What a layer gives, by a plain hook, at the last call of its module."""
    seen: dict[str, Tensor] = {}
    what = records.network.layers[i].read
    layer = "fc2" if what == "output" else what.removeprefix("relu6(").removeprefix("relu(").rstrip(")")
    handle = model.layer(layer).register_forward_hook(lambda _m, _i, out: seen.update(out=out.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return F.relu6(seen["out"]) if what.startswith("relu6") else F.relu(seen["out"]) if "(" in what else seen["out"]


def test_the_overview(model: vizcnn.Model, records: Measured, images: Tensor) -> None:
    network = records.network
    assert [layer.name for layer in network.layers] == [site.name for site in find_sites(model).sites]
    assert (network.input, network.classes, network.images) == ((3, 40, 32), Labelled.classes, COUNT)
    assert network.parameters == sum(p.numel() for p in model.network.parameters())
    assert network.accuracy == pytest.approx(20 / 24)
    assert network.origin.weights == model.weights_sha256()
    assert network.origin.fingerprint == records.material.index.digest
    block = network.layers[number(records, "block2.conv2")]
    assert [(p.weights, p.norm, p.kernel, p.groups) for p in block.paths] == [
        ("block2.conv2", "block2.bn2", (3, 3), 2),
        ("block2.shortcut.0", "block2.shortcut.1", (1, 1), 1),
    ]
    assert [network.layers[p.source].name for p in block.paths if p.source is not None] == [
        "block2.conv1",
        "block1.conv2",
    ]
    assert network.layers[0].paths[0].source is None
    assert network.layers[number(records, "fc1")].paths[0].kernel is None  # dense
    assert network.layers[-1].is_output
    narrow = network.layers[number(records, "narrow")]
    assert (narrow.activation, type(narrow.zeros)) == ("", Missing)
    assert narrow.paths == ()  # it reads a leaky ReLU that no layer gives
    stem = read(model, records, 0, images)
    assert network.layers[0].zeros == pytest.approx(float((stem == 0).float().mean()))


def test_crops_are_the_best_values_at_their_places_and_nothing_outside_their_box_counts(
    model: vizcnn.Model, records: Measured, images: Tensor
) -> None:
    random = torch.Generator().manual_seed(0)
    for name in ("stem", "block1.conv2", "wide", "fc1"):
        i = number(records, name)
        output = read(model, records, i, images)
        for k, unit in enumerate(records.units(i)):
            if k % 3:
                continue
            for rank, crop in enumerate(unit.crops[:3]):
                own = output[crop.image, k]
                assert crop.value == pytest.approx(float(own.max()), rel=1e-5)
                best = output[:, k].reshape(COUNT, -1).amax(1).sort(descending=True).values
                assert crop.value == pytest.approx(float(best[rank]), rel=1e-5)
                if crop.place is None:
                    continue
                assert float(own[crop.place]) == pytest.approx(crop.value, rel=1e-5)
                assert crop.box is not None
                noisy = torch.rand(1, 3, 40, 32, generator=random)
                inside = (
                    ...,
                    slice(int(crop.box.top), int(crop.box.bottom)),
                    slice(int(crop.box.left), int(crop.box.right)),
                )
                noisy[inside] = images[crop.image : crop.image + 1][inside]
                again = read(model, records, i, noisy)[(0, k, *crop.place)]
                assert float(again) == pytest.approx(crop.value, rel=1e-4, abs=1e-5)


def test_statistics_of_a_unit(model: vizcnn.Model, records: Measured, images: Tensor) -> None:
    i = number(records, "block1.conv2")
    output, labels = read(model, records, i, images), records.images.labels
    for k, unit in enumerate(records.units(i)):
        values = output[:, k].numpy()
        assert unit.mean == pytest.approx(values.mean(), rel=1e-4)
        assert unit.sd == pytest.approx(values.std(), rel=1e-3)
        assert unit.zeros == pytest.approx((values == 0).mean())
        assert isinstance(unit.histogram, Histogram)
        assert unit.histogram.zeros == (values == 0).sum()
        assert unit.histogram.counts.sum() == (values != 0).sum()
        assert (np.diff(unit.histogram.edges) > 0).all()
        assert (unit.histogram.edges[0], unit.histogram.edges[-1]) == (0, np.inf)
        for n, count in enumerate(unit.histogram.counts):
            low, high = unit.histogram.edges[n : n + 2]
            assert count == ((values >= low) & (values < high) & (values != 0)).sum()
        assert isinstance(unit.classes, tuple)
        for c, mean in unit.classes:
            assert mean == pytest.approx(values[labels == c].mean(), rel=1e-4)


def test_effects_agree_with_a_hook(model: vizcnn.Model, records: Measured, images: Tensor) -> None:
    """All units are measured in the time given, on all images, and answers are counted as they are."""
    i, labels = number(records, "block2.conv2"), torch.from_numpy(records.images.labels)
    wall = records.wall(i)
    with torch.no_grad():
        before = model(images)
    for k, unit in enumerate(records.units(i)):
        assert isinstance(unit.effect, Effect)

        def zero(_m: nn.Module, _i: tuple[Tensor, ...], out: Tensor, k: int = k) -> Tensor:
            return out.index_fill(1, torch.tensor([k]), 0)

        handle = model.layer("block2").register_forward_hook(zero)
        with torch.no_grad():
            after = model(images)
        handle.remove()
        change = (after - before)[torch.arange(COUNT), labels]
        assert unit.effect.change == pytest.approx(float(change.mean()), abs=1e-5)
        assert wall.effect[k] == pytest.approx(unit.effect.change)
        assert (unit.effect.images, unit.effect.correlation) == (COUNT, None)
        assert unit.effect.flips == int((after.argmax(1) != before.argmax(1)).sum())
        assert unit.effect.after == pytest.approx(float((after.argmax(1) == labels).float().mean()))
        for c, own in unit.effect.by_class:
            assert own == pytest.approx(float(change[labels == c].mean()), abs=1e-5)
    assert not wall.is_estimated.any()


def test_what_was_not_measured_says_why(model: vizcnn.Model, index: Index) -> None:
    records = measure(model, find_sites(model), index, replace(PLAN, effects=0, pictures=(), by_hand=(), pages=1))
    unit = next(iter(records.units(0)))
    assert unit.effect == unit.picture == Missing("It was not asked for.")
    assert records.by_hand(0) == Missing("It was not asked for.")
    assert len(list(records.image_pages())) == 1
    narrow = number(records, "narrow")
    assert next(iter(records.units(narrow))).reads == Missing(
        "What leads into it cannot be followed: behind the operation 'leaky_relu'."
    )
    assert np.isnan(records.wall(0).effect).all()


def test_an_estimate_is_shown_where_enough_units_were_measured_and_else_says_why(
    model: vizcnn.Model, index: Index
) -> None:
    records = measure(model, find_sites(model), index, replace(PLAN, effects=1e-9, pictures=()))
    effects = [unit.effect for unit in records.units(number(records, "fc1"))]
    measured = [effect for effect in effects if isinstance(effect, Effect)]
    assert len(measured) == 1
    reason = next(effect for effect in effects if isinstance(effect, Missing)).reason
    assert reason.startswith("In the time that was given 1 of the 7 units of this layer were measured, and this")
    assert "it takes 20 measured units" in reason


def test_links_pictures_and_neighbours(model: vizcnn.Model, records: Measured) -> None:
    units = list(records.units(0))
    for k, unit in enumerate(units):
        assert isinstance(unit.reads, tuple)
        assert {link.layer for link in unit.reads} == {None}  # the channels of the image
        assert isinstance(unit.feeds, tuple)
        names = {records.network.layers[link.layer].name for link in unit.feeds if link.layer is not None}
        assert names <= {"block1.conv1", "block1.conv2"}
        assert isinstance(unit.picture, Picture)
        assert unit.picture.pixels.shape == (40, 32, 3)
        assert unit.kernel is not None
        conv = model.layer("stem")
        assert isinstance(conv, nn.Conv2d)
        expected = conv.weight[k].detach() / torch.tensor(model.input.std)[:, None, None]
        np.testing.assert_allclose(unit.kernel, expected.permute(1, 2, 0), rtol=1e-5)
        assert isinstance(unit.neighbours, tuple)
        assert all((n.layer, n.unit) != (0, k) for n in unit.neighbours)


def test_a_link_shows_its_own_kernel_also_of_groups(records: Measured) -> None:
    i = number(records, "block2.conv2")
    path = records.material.site(i).paths[0]
    weights = path.fold()  # (C, I / 2, 3, 3)
    shown = 0
    for k, unit in enumerate(records.units(i)):
        assert isinstance(unit.reads, tuple)
        for link in unit.reads:
            if link.kernel is None:  # through the 1x1 shortcut
                continue
            first = k // (len(weights) // path.groups) * weights.shape[1]
            np.testing.assert_allclose(link.kernel, weights[k, link.unit - first], rtol=1e-5, atol=1e-7)
            shown += 1
    assert shown >= len(weights)


def test_sums_by_hand_agree_with_the_records_alone(records: Measured) -> None:
    for name in ("stem", "block2.conv2", "fc1", "fc2"):
        i = number(records, name)
        found = records.by_hand(i)
        assert isinstance(found, ByHand)
        for reading in found.readings:
            total = torch.zeros(1, *records.network.layers[i].shape)
            for term, values in zip(found.terms, reading.reads, strict=True):
                assert term is not None
                weight, bias, x = (torch.from_numpy(each) for each in (term.weight, term.bias, values))
                dense = weight.dim() == 2 or len(records.network.layers[i].shape) == 1
                if weight.dim() == 2:
                    total += x @ weight.T + bias
                else:
                    out = F.conv2d(x[None], weight, bias, term.stride, term.padding, term.dilation, term.groups)
                    total += out.flatten(1) if dense else out
            limits = {"relu": (0, None), "relu6": (0, 6), "": (None, None)}[records.network.layers[i].activation]
            says = total[0].clamp(*limits) if limits != (None, None) else total[0]
            np.testing.assert_allclose(says, reading.says, rtol=1e-3, atol=1e-4)


def test_classes_and_images(model: vizcnn.Model, records: Measured, images: Tensor) -> None:
    with torch.no_grad():
        output, weights = model(images), model.network.get_parameter("fc2.weight").detach()
    own, labels, predicted = records.images, records.images.labels, output.argmax(1).numpy()
    np.testing.assert_array_equal(own.predicted, predicted)
    np.testing.assert_allclose(own.probabilities, output.softmax(1).amax(1), rtol=1e-5)
    for c, page in enumerate(records.classes()):
        assert page.images == (labels == c).sum()
        assert page.right == ((labels == c) & (predicted == c)).sum()
        assert dict(page.taken_for) == {
            k: n for k in range(5) if k != c and (n := int(((labels == c) & (predicted == k)).sum()))
        }
        assert dict(page.taken_from) == {
            k: n for k in range(5) if k != c and (n := int(((labels == k) & (predicted == c)).sum()))
        }
        assert set(page.examples) <= set(np.flatnonzero(labels == c))
        if isinstance(page.votes, tuple):
            fc1 = read(model, records, number(records, "fc1"), images)[labels == c].mean(0)
            for vote in page.votes:
                assert vote.value == pytest.approx(float(weights[c, vote.unit] * fc1[vote.unit]), rel=1e-3, abs=1e-6)
    pages = list(records.image_pages())
    assert len(pages) == 3
    assert any(labels[page.image] != predicted[page.image] for page in pages)
    for shown in pages:
        assert shown.answers[0][0] == predicted[shown.image]
        assert isinstance(shown.fired, tuple)
        for layer, fired in shown.fired:
            values = read(model, records, layer, images)
            assert len(fired) <= 5, "as many as stand in a row"
            for one in fired:
                assert one.value == pytest.approx(float(values[shown.image, one.unit].max()), rel=1e-4)
                assert one.share == pytest.approx(one.value / float(values[:, one.unit].max()), rel=1e-4)
        assert records.photograph(shown.image).shape == (40, 32, 3)


def test_a_network_that_cannot_be_followed_has_an_atlas_without_links(tmp_path: Path) -> None:
    model = vizcnn.Model(Undecided(), size=16)
    sites, images = find_sites(model), torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    index = scan(model, images, tmp_path / "i", layers=list_readings(sites), study=Study(), loaders=0, progress=False)
    records = measure(model, sites, index, replace(PLAN, pictures=(), pages=1, by_hand=("inner.0",)))
    assert records.network.graph is not None
    assert records.network.graph.reason.startswith("A run without numbers fails")
    assert [layer.name for layer in records.network.layers] == ["inner.0", "inner.3", "inner.7", "output"]
    weights = [model.layer(name).parameters() for name in ("inner.0", "inner.3", "inner.7")]
    own = [sum(parameter.numel() for parameter in each) for each in weights]
    assert [layer.parameters for layer in records.network.layers] == [*own, 0]
    assert records.network.accuracy == Missing("The images have no labels.")
    unit = next(iter(records.units(0)))
    assert unit.crops
    assert all(isinstance(part, Missing) for part in (unit.effect, unit.reads, unit.feeds, records.by_hand(0)))
    assert [page.right for page in records.classes()] == [Missing("The images have no labels.")] * 5
    assert all(isinstance(page.fired, Missing) for page in records.image_pages())


def test_an_interrupted_atlas_goes_on(model: vizcnn.Model, index: Index, tmp_path: Path) -> None:
    before, keeper = model.weights_sha256(), Keeper(tmp_path / "kept")
    first = [unit.effect for unit in measure(model, find_sites(model), index, PLAN, keeper=keeper).units(0)]
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()}
    again = [unit.effect for unit in measure(model, find_sites(model), index, PLAN, keeper=keeper).units(0)]
    assert again == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").iterdir()} == kept
    assert model.weights_sha256() == before


def make_maps(material: Material, number: int, image: Tensor) -> tuple[list[MapOf], list[str]]:
    """The maps of an image, and the reasons against others."""
    found = [*maps.make_maps(material, number, image)]
    made = [one for one in found if isinstance(one, MapOf)]
    return made, [one.reason for one in found if isinstance(one, Missing)]


def test_each_map_is_kept_for_its_image_class_and_seed(
    model: vizcnn.Model, index: Index, images: Tensor, tmp_path: Path
) -> None:
    material = measure(model, find_sites(model), index, PLAN, keeper=Keeper(tmp_path)).material
    predicted = material.predicted
    alike = next(n for n in range(2, 6) if predicted[n] == predicted[1])  # whose maps are of the same class
    for _ in range(2):  # made, and recalled
        for n in (0, 1, alike):  # the first is labelled otherwise than it is answered
            found, unmade = make_maps(material, n, images[n : n + 1])
            asked = [int(material.predicted[n])] + ([int(material.labels[n])] if n == 0 else [])
            assert len(found) + len(unmade) == 2 * len(asked)
            own = [one for one in found if one.method == "Occlusion"]
            assert [one.target for one in own] == [model.class_name(c) for c in asked]
            alone = vizcnn.Occlusion()(
                model, images[n : n + 1], asked, trust=True, seed=PLAN.seed, progress=False
            )  # fmt: skip
            for values, trust, one in zip(alone.values[0], alone.trust[0], own, strict=True):
                np.testing.assert_allclose(one.values, values, atol=1e-4)
                assert one.trust == trust
    other = measure(model, find_sites(model), index, replace(PLAN, seed=1), keeper=Keeper(tmp_path)).material
    before = len([*tmp_path.iterdir()])
    make_maps(other, 1, images[1:2])
    assert len([*tmp_path.iterdir()]) == before + 2  # of another seed, nothing is recalled


def test_maps_of_classes_that_are_asked_for_one_by_one_are_kept_apart(
    model: vizcnn.Model, index: Index, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = measure(model, find_sites(model), index, PLAN, keeper=Keeper(tmp_path)).material
    coarse = vizcnn.Occlusion(window=16, stride=16)

    def refuse_several(model: vizcnn.Model, image: Tensor, targets: list[int], **given: Any) -> Heatmap:
        if len(targets) > 1:
            raise DegenerateResult("one of them has no map. Ask for another")
        return coarse(model, image, targets, **given)

    monkeypatch.setattr(maps, "_list_methods", lambda _: iter([("Mine", refuse_several)]))
    found, _ = make_maps(material, 0, images[:1])
    asked = [int(material.predicted[0]), int(material.labels[0])]
    alone = coarse(model, images[:1], asked, progress=False).values[0]
    for one, values in zip(found, alone, strict=True):
        np.testing.assert_allclose(one.values, values, atol=1e-4)


def test_a_class_for_which_nothing_speaks_takes_no_map_from_the_other(
    model: vizcnn.Model, records: Measured, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = int(records.material.predicted[0])

    def refuse_others(model: vizcnn.Model, image: Tensor, targets: list[int], **given: Any) -> Heatmap:
        if targets != [predicted]:
            raise DegenerateResult("nothing speaks for it. Ask for another")
        return vizcnn.Occlusion(window=16, stride=16)(model, image, targets, **given)

    monkeypatch.setattr(maps, "_list_methods", lambda _: iter([("Mine", refuse_others)]))
    found, unmade = make_maps(records.material, 0, images[:1])
    assert [one.target for one in found] == [model.class_name(predicted)]
    assert unmade == [f"Mine for {model.class_name(int(records.material.labels[0]))}: nothing speaks for it."]


def test_a_map_that_is_refused_names_its_image(
    records: Measured, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    covered_alike = vizcnn.Occlusion(window=16, stride=16, fill="#000000")
    monkeypatch.setattr(maps, "_list_methods", lambda _: iter([("Mine", covered_alike)]))
    found, unmade = make_maps(records.material, 3, torch.zeros_like(images[:1]))
    assert not found
    assert len(unmade) == 1
    assert " of image 3 by more than rounding" in unmade[0]


def test_an_index_of_another_network_or_without_a_study_is_refused(
    model: vizcnn.Model, index: Index, images: Tensor, tmp_path: Path
) -> None:
    other = make_varied()
    with pytest.raises(ParameterError, match="is the index of a network with the weights"):
        measure(other, find_sites(other), index, PLAN)
    plain = scan(model, images, tmp_path / "p", layers=["stem"], loaders=0, progress=False)
    with pytest.raises(ParameterError, match=r"lacks layer 'relu\(stem\)', which an atlas needs"):
        measure(model, find_sites(model), plain, PLAN)


def test_selectivity() -> None:
    means = np.array([[4.0, 1.0, np.nan, 1.0], [2.0, 2.0, np.nan, 2.0], [-1.0, 3.0, np.nan, 0.0]])
    best, selectivity = measure_selectivity(means)
    assert best.tolist() == [0, -1, 1]
    assert selectivity[0] == pytest.approx((4 - 1) / (4 + 1))
    assert np.isnan(selectivity[1:]).all()
