"""Labels come in the order of the output, whatever they are written as; what has no order is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

import vizcnn
from vizcnn.errors import ParameterError

NAMES = ("cat", "dog", "fox")


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "fox"],
        (name for name in NAMES),
        np.array(NAMES),
        {0: "cat", 1: "dog", 2: "fox"},
        {2: "fox", 0: "cat", 1: "dog"},
        {"2": "fox", "1": "dog", "0": "cat"},
        {"fox": 2, "cat": 0, "dog": 1},
        {"fox": np.int64(2), "cat": np.int64(0), "dog": np.int64(1)},
    ],
)
def test_names_come_in_the_order_of_the_output(labels: Any) -> None:
    assert vizcnn.Model(nn.Identity(), size=4, labels=labels).labels == NAMES


def test_classes_that_are_called_by_numbers_keep_their_names() -> None:
    """As torchvision's ImageFolder sorts folders named 0, 1, 10 and 2."""
    model = vizcnn.Model(nn.Identity(), size=4, labels={"0": 0, "1": 1, "10": 2, "2": 3})
    assert model.labels == ("0", "1", "10", "2")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("abc", r"got one text, 'abc'. Give a list: labels=\['abc'\]"),
        ({"cat"}, "a set has no order"),
        (7, "one name per class, got 7"),
        ({0: "cat", 2: "fox"}, "without gaps, got none for 1 among 2 names, 0 to 2"),
        ({1: "cat", 2: "fox"}, "without gaps, got none for 0"),
        ({"cat": 0, "fox": 0}, "give class 0 two names"),
        ({0: "cat", "0": "fox"}, "give class 0 two names"),
        ({"cat": "animal"}, "from numbers to names or from names to numbers, got {'cat': 'animal'}"),
        ({"cat": True, "dog": False}, "from numbers to names or from names to numbers"),
    ],
)
def test_what_has_no_order_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        vizcnn.Model(nn.Identity(), size=4, labels=labels)
