from __future__ import annotations

import numpy as np

from vizcnn.scanning.crops import fit


def test_a_crop_fills_a_tile_of_its_shape() -> None:
    crop = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(fit(crop, (8, 8)), crop)


def test_a_crop_of_another_shape_stands_on_white_undistorted() -> None:
    crop = np.zeros((4, 8, 1), np.float32)
    tile = fit(crop, (16, 16))
    assert tile.shape == (16, 16, 1)
    assert (tile[:4] == 1).all()
    assert (tile[12:] == 1).all()
    assert (tile[4:12] == 0).all()
