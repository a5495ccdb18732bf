"""How results show, save and tell how far their maps can be believed."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legibility import find_faults
from support_maps import heatmap, projections

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.geometry import Box
from vizcnn.results import Trust
from vizcnn.results.storing import RECORD, digest_of
from vizcnn.results.style import STYLES
from vizcnn.results.trust import describe_trust

pytestmark = pytest.mark.filterwarnings("ignore:no installed font", "ignore:matplotlib .* draws Arabic", "ignore:Glyph")

CLASS = "a class whose name is as long as names of classes come in some data sets"
SUPPORTED = Trust(97.4, 0.6, 0.2, 0.12, CLASS, 101)
TRUSTS = [
    SUPPORTED,
    Trust(80, 0.3, 0.4, 0.75, "cat", 101, steadiness=0.4, missing=0.2),
    Trust(51, 0.1, 0.2, 0.0, "cat", 101, "zero everywhere"),
    Trust(99, 0.6, 0.2, 0.97, CLASS, 101),
    Trust(99, 0.6, 0.2, None, "", 101, "the network has one output, and no other class to compare with"),
    None,
]
VERDICTS = [
    "✓ supported", "~ weakly supported", "✗ no better than chance", "! do not read as reasons", "? contrast not tested",
    "– not judged",
]  # fmt: skip


def trusted(images: int, targets: int, **how: Any) -> vizcnn.Heatmap:
    """Maps of which each is of another trust."""
    found = heatmap(images, targets, **how)
    rows = [[TRUSTS[(i * targets + t) % len(TRUSTS)] for t in range(targets)] for i in range(images)]
    return replace(found, trust=tuple(map(tuple, rows)), provenance=replace(found.provenance, trust=True))


def read_texts(figure: Any) -> str:
    """All that is written on a figure, lines joined, in the order in which it was written."""
    texts = [each.get_text() for each in figure.texts]
    return " ".join(" ".join(texts).split())


@pytest.mark.parametrize(
    ("images", "targets", "size", "style"),
    [
        (1, 1, (60, 80), "dark"),
        (1, 4, (60, 80), "screen"),
        (1, 4, (60, 80), "print"),
        (2, 3, (400, 40), "print-wide"),
        (4, 1, (40, 400), "screen"),
        (6, 2, (60, 80), "screen"),
        (7, 1, (60, 80), "print"),
        (9, 3, (90, 30), "screen"),
    ],
)
def test_words_are_whole_and_apart_below_their_maps(
    images: int, targets: int, size: tuple[int, int], style: str
) -> None:
    with vizcnn.use_style(style):
        found = trusted(images, targets, size=size)
        for page in {1, found.pages}:
            figure = found.figure(page)
            assert find_faults(figure) == []
            assert figure.get_figwidth() <= STYLES[style].width + 0.01


def test_large_panels_say_all_and_tiles_the_verdict() -> None:
    found = trusted(3, 2)
    said = "".join(read_texts(found.figure(page)) for page in range(1, found.pages + 1))
    for trust in TRUSTS:
        assert (trust.describe() if trust else "– not judged") in said
    sheet = trusted(7, 1)
    said = read_texts(sheet.figure())
    assert all(verdict in said for verdict in VERDICTS)
    assert "random maps" not in said
    assert "how far the map can be believed" in said


@pytest.mark.parametrize(("style", "trust"), [*product(["screen", "print"], [*TRUSTS[3:], SUPPORTED])])
def test_a_single_map_says_it_below(style: str, trust: Trust | None) -> None:
    with vizcnn.use_style(style):
        ax = replace(heatmap(), trust=((trust,),)).plot()
        assert find_faults(ax.figure) == []  # type: ignore[arg-type]
    assert " ".join(ax.get_xlabel().split()).endswith(trust.describe() if trust else "– not judged")


@pytest.mark.parametrize("style", ["screen", "print"])
def test_words_over_projections_are_whole_and_apart(style: str) -> None:
    found = projections((100, 100), [Box(0, 0, 50, 90), Box(20, 20, 80, 40), Box(0, 0, 9, 9)])
    found = replace(found, trust=((SUPPORTED, TRUSTS[4], None),))
    with vizcnn.use_style(style):
        figure = found.figure()
        assert find_faults(figure) == []
    said = " ".join(" ".join(text.get_text() for ax in figure.axes for text in ax.texts).split())
    assert SUPPORTED.describe() in said
    assert found.describe().splitlines() == [
        "found",
        f"  layer0.conv:17@3,4: {SUPPORTED.describe()}",
        f"  layer1.conv:17@3,4: {describe_trust(TRUSTS[4])}",
        "  layer2.conv:17@3,4: – not judged",
    ]


def test_a_projection_is_a_map_of_its_magnitudes_over_all_that_was_seen() -> None:
    """The pattern of 4 x 4 px fills a box of the photograph that is half as wide as what the network saw: 8 x 8 px."""
    (whole,) = projections((100, 200), [Box(50, 50, 100, 100)]).list_maps(0)
    expected = np.zeros((8, 8))
    expected[4, 4] = 2
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_trust_is_saved_and_opened(kind: str, tmp_path: Path) -> None:
    for found in (trusted(2, 3), replace(projections((9, 9), [Box(0, 0, 9, 9)]), trust=((SUPPORTED,),))):
        opened = vizcnn.load_result(found.save(tmp_path / f"a{kind}"))
        assert type(opened) is type(found)
        assert opened.trust == found.trust
        assert opened.describe() == found.describe()


def test_a_file_from_before_there_was_trust_opens_without(tmp_path: Path) -> None:
    file = heatmap().save(tmp_path / "a.npz")
    with np.load(file) as saved:
        arrays = {**saved}
    record, manifest = json.loads(str(arrays.pop(RECORD))), json.loads(str(arrays.pop("manifest")))
    for part in (record["fields"], record["provenance"], manifest["provenance"]):
        del part["trust"]
    del record["sha256"]
    record["sha256"] = digest_of(manifest, record, arrays)
    texts: dict[str, Any] = {RECORD: np.array(json.dumps(record)), "manifest": np.array(json.dumps(manifest))}
    np.savez(file, **arrays, **texts)
    opened = vizcnn.load_result(file)
    assert isinstance(opened, vizcnn.Heatmap)
    assert (opened.trust, opened.provenance.trust) == ((), False)


def test_json_and_records_hold_the_verdict(tmp_path: Path) -> None:
    found = trusted(2, 3)
    manifest = json.loads(found.save(tmp_path / "a.json").read_text())
    maps = [one["trust"] for image in manifest["images"] for one in image["maps"]]
    assert maps == [trust and json.loads(json.dumps(trust.summary())) for trust in TRUSTS]
    assert maps[0]["sentences"] == [*SUPPORTED.sentences]
    records = found.records()
    assert [one["trust"] for one in records] == [trust and trust.verdict for trust in TRUSTS]
    assert [one["need"] for one in records] == [97.4, 80, 51, 99, 99, None]
    assert vizcnn.load_result(tmp_path / "a.json").records() == records
    assert not {"trust", "need"} & heatmap().records()[0].keys()


def test_words_stand_below_each_finding_and_on_the_page(tmp_path: Path) -> None:
    found = trusted(1, 2)
    assert found.describe().splitlines() == [
        "a.png: found",
        f"  {SUPPORTED.describe()}",
        "a.png: found",
        f"  {describe_trust(TRUSTS[1])}",
    ]
    assert SUPPORTED.describe() in found.save(tmp_path / "a.html").read_text()


def test_a_result_cut_short_does_not_say_that_maps_are_judged() -> None:
    found = replace(trusted(1, 1), trust=(), partial=True)
    assert "how far its maps can be believed is not known" in found.describe()


def test_trust_goes_with_its_map() -> None:
    found = trusted(2, 3, scores=[[0.1, 0, 0], [0.9, 0, 0]])
    rows = found.trust
    assert found.select([1]).trust == rows[1:]
    assert found.sort().trust == rows[::-1]
    chosen = found.select_targets([2, 0])
    assert chosen.trust == tuple((row[2], row[0]) for row in rows)
    np.testing.assert_array_equal(chosen.values, found.values[:, [2, 0]])
    np.testing.assert_array_equal(chosen.scores, found.scores[:, [2, 0]])
    assert chosen.provenance.targets == tuple((row[2], row[0]) for row in found.provenance.targets)
    assert chosen.provenance.target_specs == (("2", "0"),) * 2
    assert chosen.second_marks == tuple((row[2], row[0]) for row in found.second_marks)
    assert [one["target"] for one in chosen.records()] == [row for rows in chosen.provenance.targets for row in rows]


@pytest.mark.parametrize("targets", [[], [3], [-1], [0.5], np.array([True, False, False])])
def test_targets_that_are_not_there_are_refused(targets: Any) -> None:
    with pytest.raises(ParameterError):
        heatmap(1, 3).select_targets(targets)
