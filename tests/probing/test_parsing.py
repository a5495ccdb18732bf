from __future__ import annotations

import pytest

from vizcnn.probing.parsing import parse_names


@pytest.mark.parametrize(
    ("text", "found"),
    [("a", ("a",)), (" a , b.c", ("a", "b.c")), ("a,b,", ("a", "b")), (",a, ,b", ("a", "b")), ("", ()), (" , ", ())],
)
def test_names_have_commas_between(text: str, found: tuple[str, ...]) -> None:
    assert parse_names(text) == found
