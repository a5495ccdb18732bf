"""Pictures that an ascent made, in panels, with words for what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from legibility import find_faults
from support import ORIGIN

from vizcnn.geometry import Box
from vizcnn.inputs.photo import Photo
from vizcnn.results import Optimised
from vizcnn.results.sheet import CROPS, Inverted, Made, Making, RealImages, arrange, arrange_inversions

MAKING = Making("robust", 20, {"l1": 0.5})


def made(target: str, level: float, channels: int = 3, **more: Any) -> Made:
    return Made(target, "activation", np.full((4, 6, channels), level, np.float32), 10 * level, **more)


def arranged(pictures: Sequence[Made], **more: Any) -> Optimised:
    frames = np.zeros((0, len(pictures), 4, 6, 3), np.uint8)
    return arrange(ORIGIN, pictures, MAKING, frames, **more)


def test_pictures_stand_in_panels_by_what_was_done_for_what() -> None:
    raised = [made("conv:7", 0.1, channel=7), made("conv:2 - conv:1", 0.2, copy=1)]
    found = arranged([*raised, made("conv:7", 0.3, channel=7, lowered=True)])
    first, second = found.panels
    assert (first.key, first.title) == ("pictures", "activation, raised")
    assert (second.key, second.title) == ("pictures-1", "activation, lowered")
    np.testing.assert_array_equal(first.values[:, 0, 0, 0], np.array([0.1, 0.2], np.float32))
    assert first.titles == ("conv:7\n1", "conv:2 - conv:1 #2\n2")
    assert first.channels == (7, 1)  # what is no unit is numbered
    assert second.channels == (7,)
    np.testing.assert_allclose(found.reached, [1, 2, 3])
    assert found.describe() == "robust, 20 steps, l1 0.5: conv:7 1, conv:2 - conv:1 #2 2, conv:7 lowered to 3"
    assert first.meaning == "robust, 20 steps, l1 0.5; below each name the value reached"


def test_grey_pictures_are_grey_tiles() -> None:
    assert arranged([made("a", 0.5, channels=1)]).panels[0].values.shape == (1, 4, 6)


def test_a_sheet_has_few_gaps_and_fits_a_page() -> None:
    for count in (1, 5, 6, 7, 12, 16, 40, 100):
        figure = arranged([made(str(i), 0.5) for i in range(count)]).figure()
        tops = [image.get_extent()[3] for image in figure.axes[0].images]
        columns = tops.count(tops[0])
        assert figure.get_figwidth() <= 9
        assert -count % columns <= columns / 3, count


def test_crops_stand_beside_their_picture_and_white_where_there_are_none() -> None:
    crops = tuple((str(k), np.full((4, 6, 3), k / 10, np.float32)) for k in range(2))
    found = arranged([made("conv:7", 0.1, channel=7, crops=crops), made("conv:9", 0.2, channel=9)],
                     crops_from=RealImages(1234, "max"))  # fmt: skip
    pictures, beside = found.panels
    assert pictures.columns == 1
    assert beside.columns == CROPS
    assert beside.title == "of 1,234 real images the best"
    assert beside.meaning.endswith("above each the channel's max over positions")
    np.testing.assert_allclose(beside.values[:, 0, 0, 0], [0, 0.1, 1, 1, 1, *[1] * CROPS], atol=1e-6)
    assert beside.channels == (7,) * CROPS + (9,) * CROPS
    assert beside.titles[:3] == ("\n0", "\n1", "\n")


def test_a_sentence_names_ten_pictures_at_most() -> None:
    found = arranged([made(f"conv:{i}", 0.1 * (i + 1), responded=i == 0) for i in range(25)])
    first, stuck = found.findings
    assert first.endswith(", conv:9 10 and 15 more")
    assert stuck.startswith("conv:1, conv:2, ")
    assert "conv:10 and 14 more never responded" in stuck


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"notes": ("float32 was used",)}, "float32 was used"),
        ({"interrupted_of": 5}, "stopped early: 2 of 5 pictures, as far as they got"),
    ],
)
def test_what_else_was_found_is_said(more: dict[str, Any], said: str) -> None:
    found = arranged([made("a", 0.1), made("b", 0.0, responded=False)], **more)
    assert said in found.findings
    assert "b never responded to any change, so these pictures show nothing" in found.describe()
    assert found.partial is ("interrupted_of" in more)


def inversions(channels: int = 3, *, partial: bool = False) -> Optimised:
    """Of two photographs, the second at one layer only."""
    photos = [(Photo(np.zeros((10, 12, 3), np.float32), f"{name}.png"), Box(1, 1, 9, 11)) for name in "ab"]
    made_from = [(0, "conv", 0.125), (0, "a.very.long.name.of.a.layer.deep.inside", 0.5), (1, "conv", 2.0)]
    pictures = [
        Inverted(i, layer, np.full((4, 6, channels), error / 4, np.float32), error) for i, layer, error in made_from
    ]
    return arrange_inversions(ORIGIN, photos, pictures, 30, np.zeros((0, 3, 4, 6, 3), np.uint8), partial=partial)


def test_inversions_stand_beside_their_photograph_with_the_error_reached() -> None:
    found = inversions()
    assert [row.scene and row.scene.photo.name for row in found.rows] == ["a.png", "b.png"]
    assert [row.scene and row.scene.seen for row in found.rows] == [Box(1, 1, 9, 11)] * 2
    first, second = found.panels
    assert (first.key, second.key) == ("pictures", "pictures-1")
    np.testing.assert_array_equal(first.values[:, 0, 0, 0], np.array([0.03125, 0.125], np.float32))
    np.testing.assert_array_equal(second.values, np.full((1, 4, 6, 3), 0.5, np.float32))
    assert first.titles[0] == "conv\nerror 0.12"
    assert first.titles[1] == "a.very.long.name.of.a.layer.deep.inside\nerror 0.5"
    assert not find_faults(found.figure())  # which shows the ends of that name
    np.testing.assert_array_equal(found.reached, [0.125, 0.5, 2.0])
    assert found.findings == (
        "a.png: relative errors reached: conv 0.12, a.very.long.name.of.a.layer.deep.inside 0.5",
        "b.png: relative errors reached: conv 2",
    )
    assert first.meaning == "30 steps; below each layer the relative error of its activations"
    assert not found.partial


def test_inversions_of_a_grey_network_are_grey_and_say_where_they_stopped_early() -> None:
    found = inversions(1, partial=True)
    assert found.panels[0].values.shape == (2, 4, 6)
    assert found.partial
    assert all(finding.endswith(" (stopped early)") for finding in found.findings)
