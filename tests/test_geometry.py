from __future__ import annotations

import numpy as np
import pytest
import torch

from vizcnn.geometry import Box


def test_the_box_around_what_a_mask_holds() -> None:
    mask = np.zeros((6, 9))
    mask[2, 5], mask[4, 3] = -1, 0.5
    for each in (mask, mask != 0, torch.from_numpy(mask), torch.from_numpy(mask) != 0):
        assert Box.around(each) == Box(2, 3, 5, 6)
    assert Box.around(np.ones((6, 9))) == Box(0, 0, 6, 9)
    assert Box.around(np.zeros((6, 9))) is None


def test_a_box_of_an_input_in_its_photograph() -> None:
    box = Box(2, 4, 6, 8).map_onto((8, 8), Box(10, 20, 26, 28))
    assert (box.top, box.left, box.bottom, box.right) == pytest.approx((14, 24, 22, 28))
