from __future__ import annotations

from typing import Any

import pytest

import vizcnn
from vizcnn.errors import ParameterError
from vizcnn.probing.parsing import comma_separated


@pytest.mark.parametrize(
    ("text", "names"),
    [("conv1", ("conv1",)), ("conv1,layer2.0 , output", ("conv1", "layer2.0", "output")), ("", ()), (" , ", ())],
)
def test_names_stand_between_commas(text: str, names: tuple[str, ...]) -> None:
    assert comma_separated(text) == names


@pytest.mark.parametrize("text", ["a,,b", "a,", ",a"])
@pytest.mark.parametrize(
    ("probe", "option"),
    [(vizcnn.FeatureMaps, "layers"), (vizcnn.TopImages, "beside"), (vizcnn.Style, "style_layers")],
)
def test_a_name_that_is_missing_is_an_error_wherever_names_are_read(probe: Any, option: str, text: str) -> None:
    with pytest.raises(ValueError, match="names with commas between"):
        comma_separated(text)
    with pytest.raises(ParameterError, match=f"{option} must be names with commas between, got {text!r}"):
        probe(**{option: text})
