"""Tensors that a person hands over as inputs: values in [0, 1], the same message wherever they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vizcnn
from vizcnn.errors import ShapeError
from vizcnn.inputs.tensors import check_unit_range, to_photo

NAN = float("nan")


@pytest.mark.parametrize(("values", "said"), [([0, 1.5], r"0\.\.1\.5"), ([-0.1, 1], r"-0\.1\.\.1"), ([0, NAN], "nan")])
def test_values_outside_are_refused(values: list[float], said: str) -> None:
    with pytest.raises(
        ShapeError, match=rf"values in \[0, 1\], got .*{said}.*Pass images before normalisation: the model does it"
    ):
        check_unit_range(torch.tensor(values))


def test_values_inside_pass_and_so_does_nothing() -> None:
    check_unit_range(torch.tensor([0.0, 0.5, 1.0]))
    check_unit_range(torch.empty(0, 3, 4, 4))


def test_probes_and_scans_say_the_same(tmp_path: Path) -> None:
    model, image = vizcnn.load("lecture"), torch.full((1, 28, 28), 2.0)
    with pytest.raises(ShapeError, match=r"got 2\.\.2\. Pass images before normalisation"):
        vizcnn.Saliency()(model, image, target=0)
    with pytest.raises(ShapeError, match=r"got 2\.\.2\. Pass images before normalisation"):
        vizcnn.scan(model, [image], tmp_path / "index")


def test_a_photograph_has_the_inputs_pixels() -> None:
    inputs = torch.rand(3, 4, 5)
    photo = to_photo(inputs)
    assert photo.size == (4, 5)
    np.testing.assert_array_equal(photo.pixels, inputs.permute(1, 2, 0).numpy())
