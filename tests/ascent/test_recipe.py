"""Recipes are what their sources give."""

from __future__ import annotations

import pytest

from vizcnn.ascent import RECIPES, Fourier, Recipe, Repair
from vizcnn.errors import ParameterError


def test_recipes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ParameterError, match="repairs change pixels"):
        Recipe("bad", Fourier(), repair=Repair(blur=1.0))
    with pytest.raises(ParameterError, match="steps and rate must be positive"):
        Recipe("bad", steps=0)


def test_the_four_settings_of_yosinski_are_the_published_ones() -> None:
    """Table 1: decay, blur's width, how often, percentiles of norm and contribution."""
    found = [RECIPES[f"yosinski-{i}"].repair for i in range(1, 5)]
    assert [(r.decay, r.blur, r.every, r.small_norm, r.small_contribution) for r in found] == [
        (0, 0.5, 4, 50, 0),
        (0.3, 0, 4, 20, 0),
        (0.0001, 1.0, 4, 0, 0),
        (0, 0.5, 4, 0, 90),
    ]
