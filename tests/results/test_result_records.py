"""Records: what a result found as rows of a table, the same that its arrays, sentences and picture hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import ORIGIN, draw_folder, small_cnn

import vizcnn
from vizcnn.inputs.photo import Photo
from vizcnn.results import Record

EDGES = ["box_top", "box_left", "box_bottom", "box_right"]


def photo(seed: int, name: str) -> Photo:
    return Photo(np.random.default_rng(seed).random((12, 20, 3)).astype(np.float32), name)


PHOTOS = [photo(0, "first $x$"), photo(1, "zwei ü")]


def model() -> vizcnn.Model:
    return vizcnn.Model(small_cnn(), size=16, labels=list("abcde"), name="small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("pictures"))


def occlusion() -> vizcnn.Heatmap:
    return vizcnn.Occlusion(window=4, stride=4)(model(), PHOTOS, target=["b", "p(c)"], progress=False)


def test_a_heatmap_has_a_record_for_each_image_and_target() -> None:
    found = occlusion()
    records = found.records()
    arrays = found.arrays()
    assert [(one["image"], one["target"]) for one in records] == [
        (image.name, target) for image in PHOTOS for target in ("b", "p(c)")
    ]
    for one, (i, t) in zip(records, np.ndindex(2, 2), strict=True):
        assert one["image_index"] == i
        assert one["target_spec"] == found.provenance.target_specs[i][t]
        assert one["score"] == arrays["scores"][i, t]
        assert one["highest"] == arrays["values"][i, t].max()
        assert one["lowest"] == arrays["values"][i, t].min()
        assert (one["predicted"], one["probability"]) == (
            found.predictions[i][0].label,
            found.predictions[i][0].probability,
        )
        assert one["meaning"] == found.meanings[t]
        assert one["finding"] == found.findings[i][t]
        mark = found.marks[i][t]
        assert mark is not None
        assert [one[edge] for edge in EDGES] == [mark.box.top, mark.box.left, mark.box.bottom, mark.box.right]
        second = found.second_marks[i][t]
        edges = [second.box.top, second.box.left, second.box.bottom, second.box.right] if second else [None] * 4
        assert [one[f"second_{edge}"] for edge in EDGES] == edges
    assert not any("second" in key for one in vizcnn.Cam()(model(), PHOTOS).records() for key in one)


def test_what_is_unknown_is_none_under_the_same_keys() -> None:
    known = occlusion()
    marks = ((None, known.marks[0][1]), known.marks[1])
    holey = known.values.copy()
    holey[0, 0] = np.inf
    records = replace(known, values=holey, marks=marks, predictions=((), known.predictions[1])).records()
    assert [records[0][edge] for edge in EDGES] == [None] * 4
    assert records[0]["highest"] is None
    assert [one["predicted"] is None for one in records] == [True, True, False, False]
    assert all(list(one) == list(records[0]) for one in records)


def test_a_grid_has_a_record_for_each_tile() -> None:
    found = vizcnn.FeatureMaps(channels=3)(model(), PHOTOS)
    records, arrays = found.records(), found.arrays()
    keys = dict.fromkeys(one["key"] for one in records)
    assert list(keys) == [panel.key for panel in found.panels]
    for key in keys:
        tiles = [one for one in records if one["key"] == key]
        assert [one["channel"] for one in tiles] == arrays[f"{key}.channels"].tolist()
        assert [one["lowest"] for one in tiles] == arrays[key].min((1, 2)).tolist()
        assert [one["highest"] for one in tiles] == arrays[key].max((1, 2)).tolist()
    assert list(dict.fromkeys(one["image"] for one in records)) == [image.name for image in PHOTOS]
    assert not any("\n" in str(value) for one in records for value in one.values())


def test_tiles_without_a_photograph_have_none() -> None:
    records = vizcnn.Filters()(model()).records()
    assert len(records) == 8
    assert {one["image"] for one in records} == {None}


def test_optimised_pictures_say_what_they_reached() -> None:
    found = vizcnn.Maximize(steps=2, preset="lecture", sign="both")(model(), target="3:0-2", progress=False)
    assert [one["reached"] for one in found.records()] == found.arrays()["reached"].tolist()


def test_real_images_beside_a_picture_have_reached_nothing(folder: Path, tmp_path: Path) -> None:
    vizcnn.scan(model(), folder, tmp_path / "index", layers=["3"], progress=False)
    probe = vizcnn.Maximize(steps=2, preset="lecture", crops=str(tmp_path / "index"))
    found = probe(model(), target="3:0-1", progress=False)
    reached = {key: [one["reached"] for one in found.records() if one["key"] == key] for key in found.arrays()}
    assert reached["pictures"] == found.arrays()["reached"].tolist()
    assert set(reached["pictures.crops"]) == {None}


def test_a_table_has_a_record_for_each_row_with_pairs_in_two_columns() -> None:
    found = vizcnn.Layers()(vizcnn.load("lecture"), progress=False)
    records, arrays = found.records(), found.arrays()
    assert [one["layer"] for one in records] == [row[0] for row in found.rows]
    assert [one["parameters"] for one in records] == arrays["parameters"].tolist()
    for i, direction in enumerate(arrays["field [px]"].T):
        fields = [np.nan if one[f"field [px] {i}"] is None else one[f"field [px] {i}"] for one in records]
        np.testing.assert_array_equal(fields, direction)
    assert records[-1]["field [px] 0"] is None


def test_cells_of_different_lengths_are_texts() -> None:
    found = vizcnn.Table(ORIGIN, ("output", "note"), (((3, 4), "a"), ((5,), "b"), (None, "c")), ())
    assert found.records() == [
        {"output": "3x4", "note": "a"},
        {"output": "5", "note": "b"},
        {"output": None, "note": "c"},
    ]


def test_a_scatter_has_a_record_for_each_image(folder: Path) -> None:
    found = vizcnn.Embed(neighbours=1)(model(), folder, progress=False)
    records, arrays = found.records(), found.arrays()
    assert [[one["x"], one["y"]] for one in records] == arrays["points"].tolist()
    assert [one["image_number"] for one in records] == arrays["images"].tolist()
    assert [one["label"] for one in records] == ["cat", "cat", "dog", "dog", "dog"]
    assert [one["image"] for one in records] == list(found.names)


def test_exemplars_have_a_record_for_each_photograph_of_each_channel(folder: Path) -> None:
    found = vizcnn.TopImages(count=3)(model(), folder, ["0:1", "0:2"], progress=False)
    records, arrays = found.records(), found.arrays()
    assert [(one["target"], one["order"]) for one in records] == [(t, k) for t in ("0:1", "0:2") for k in (1, 2, 3)]
    for one, place in zip(records, np.ndindex(2, 3), strict=True):
        assert one["value"] == arrays["values"][place]
        assert one["image_number"] == arrays["images"][place]
        assert [one["row"], one["column"]] == arrays["places"][place].tolist()
        assert [one[edge] for edge in EDGES] == arrays["boxes"][place].tolist()
        assert one["label"] in ("cat", "dog")


def test_a_unit_without_places_has_neither_row_nor_box(folder: Path) -> None:
    (first, *_) = vizcnn.TopImages(count=2)(model(), folder, "b", progress=False).records()
    assert {first[key] for key in ("row", "column", *EDGES)} == {None}


def test_a_curve_has_a_record_for_each_point_of_each_line() -> None:
    lines = np.array([[1.0, 0.5, np.nan], [3.0, 2.0, 1.0]])
    records = vizcnn.Curve(ORIGIN, np.array([0.0, 0.5, 1.0]), lines, ("a", "b"), "deleted", "score").records()
    assert [one["line"] for one in records] == ["a"] * 3 + ["b"] * 3
    assert [one["x"] for one in records] == [0, 0.5, 1] * 2
    assert [one["y"] for one in records] == [1, 0.5, None, 3, 2, 1]


def test_pictures_have_a_record_each() -> None:
    found = vizcnn.Dream(steps=2, octaves=1)(model(), PHOTOS, "3:1", progress=False)
    for one, scene in zip(found.records(), found.scenes, strict=True):
        before, after = scene.values["3:1"]
        assert one == {
            "image": scene.sources[0][1].name,
            "height": 12,
            "width": 20,
            "3:1 before": before,
            "3:1 after": after,
        }


# --- what a saved .json without numbers, or a result of somebody else's, has ------------------------------------------


MADE: dict[str, Callable[[Path], vizcnn.Result]] = {
    "Heatmap": lambda _: occlusion(),
    "ImageGrid": lambda _: vizcnn.FeatureMaps(channels=2)(model(), PHOTOS),
    "Optimised": lambda _: vizcnn.Maximize(steps=2, preset="lecture")(model(), target="3:0-2", progress=False),
    "Table": lambda _: vizcnn.Layers()(vizcnn.load("lecture"), progress=False),
    "Pictures": lambda _: vizcnn.Dream(steps=1, octaves=1)(model(), PHOTOS, "3:1", progress=False),
    "Exemplars": lambda folder: vizcnn.TopImages(count=2)(model(), folder, "0:1", progress=False),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_json_has_the_same_records(kind: str, folder: Path, tmp_path: Path) -> None:
    found = MADE[kind](folder)
    assert vizcnn.load_result(found.save(tmp_path / "a.json")).records() == found.records()


def test_a_json_saved_before_there_were_records_has_those_that_it_can_give() -> None:
    said = {"sources": {"image": "a.png"}, "size": [8, 9], "values": {"logit": {"before": 1.0, "after": 2.0}}}
    (picture,) = Record(ORIGIN, "Pictures", {"pictures": [said]}, "", {}).records()
    del said["sources"]
    assert Record(ORIGIN, "Pictures", {"pictures": [said]}, "", {}).records() == [
        {key: value for key, value in picture.items() if key != "image"}
    ]
    one = {"image": "a.png", "label": None, "value": 3.5, "at": [1, 2], "box": None}
    row = {"target": "3:1", "statistics": {}, "exemplars": [one]}
    (record,) = Record(ORIGIN, "Exemplars", {"rows": [row]}, "", {}).records()
    assert (record["image"], record["image_number"], record["value"]) == ("a.png", None, 3.5)


def test_the_json_of_a_scatter_has_the_names_alone(folder: Path, tmp_path: Path) -> None:
    found = vizcnn.Embed(neighbours=1)(model(), folder, progress=False)
    opened = vizcnn.load_result(found.save(tmp_path / "a.json"))
    assert opened.records() == [{"image": name} for name in found.names]


@dataclass(frozen=True)
class Spread(vizcnn.Result):
    """A result of somebody else's, which defines no records."""

    quartiles: npt.NDArray[np.float64]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"quartiles": self.quartiles}

    def summary(self) -> dict[str, Any]:
        sets = [{"median": float(q[1]), "range": [float(q[0]), float(q[2])]} for q in self.quartiles]
        return {"sets": sets, "note": None}

    def describe(self) -> str:
        return "spread \x1b[31m wide"


SPREAD = Spread(ORIGIN, np.array([[0.0, 1.0, 2.0], [1.0, np.nan, 4.0]]))


def test_a_result_that_defines_no_records_gives_its_summary_as_one() -> None:
    assert SPREAD.records() == [
        {
            "sets.0.median": 1.0,
            "sets.0.range.0": 0.0,
            "sets.0.range.1": 2.0,
            "sets.1.median": None,
            "sets.1.range.0": 1.0,
            "sets.1.range.1": 4.0,
            "note": None,
        }
    ]


def test_so_does_a_file_of_a_kind_that_is_not_imported() -> None:
    opened = Record(ORIGIN, "NobodysKind", json.loads('{"a": {"b": 1}, "c": "d"}'), "words", {})
    assert opened.records() == [{"a.b": 1, "c": "d"}]


# --- what print and repr say ------------------------------------------------------------------------------------------


def test_a_notebook_shows_of_a_record_its_words(tmp_path: Path) -> None:
    """It has no picture: asked for one, IPython would print an error before them."""
    opened = vizcnn.load_result(occlusion().save(tmp_path / "a.json"))
    assert isinstance(opened, Record)
    assert opened._repr_mimebundle_(include=None, exclude=None) == {"text/plain": str(opened)}


def test_print_says_what_was_found() -> None:
    found = occlusion()
    assert str(found) == f"{found}" == found.describe()


def test_print_escapes_what_would_steer_the_terminal() -> None:
    assert str(SPREAD) == r"spread \x1b[31m wide"


def test_repr_is_a_line_about_the_result() -> None:
    assert repr(occlusion()) == "<Heatmap of occlusion on small: 2 images, 2 targets>"
    assert repr(vizcnn.Filters()(model())) == "<ImageGrid of filters on small>"


def test_repr_counts_what_was_refused_and_says_when_it_is_partial() -> None:
    found = occlusion()
    origin = replace(found.provenance, refused=(("a", "why"),), images=found.provenance.images[:1])
    assert repr(replace(found, provenance=origin, partial=True)) == (
        "<Heatmap of occlusion on small: 1 image, 2 targets, 1 refused, partial>"
    )


def test_a_result_of_somebody_elses_has_the_same_repr_and_may_have_its_own() -> None:
    @dataclass(frozen=True)
    class Telling(Spread):
        def __repr__(self) -> str:
            return "mine"

    @dataclass(frozen=True)
    class Inheriting(Telling):
        pass

    assert repr(SPREAD) == f"<Spread of {ORIGIN.probe} on {ORIGIN.model}>"
    assert repr(Telling(ORIGIN, SPREAD.quartiles)) == repr(Inheriting(ORIGIN, SPREAD.quartiles)) == "mine"
