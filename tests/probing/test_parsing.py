from __future__ import annotations

import pytest

from vizcnn.probing.parsing import parse_names


@pytest.mark.parametrize(
    ("text", "found"),
    [("a", ("a",)), (" a , b.c", ("a", "b.c")), ("a,b,", ("a", "b")), ("", ()), (" , ", ())],
)
def test_names_have_commas_between(text: str, found: tuple[str, ...]) -> None:
    assert parse_names(text) == found


@pytest.mark.parametrize("text", ["a,,b", ",a", "a, ,b"])
def test_a_name_that_is_missing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names with commas between"):
        parse_names(text)
