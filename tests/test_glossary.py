"""The glossary: a line for each term, in the order of the alphabet, of things that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

LINES = [
    line
    for line in (Path(__file__).parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("- ")
]


def test_each_term_has_a_line_in_the_order_of_the_alphabet() -> None:
    found = [re.fullmatch(r"- \*\*([^*]+)\*\*: \S.*[.)]", line) for line in LINES]
    assert all(found), [line for line, match in zip(LINES, found, strict=True) if not match]
    terms = [match[1].lower() for match in found if match]
    assert terms == sorted(set(terms))


def test_what_it_names_in_the_code_exists() -> None:
    for name in re.findall(r"`(vizcnn\.[\w.]+)`", "\n".join(LINES)):
        home, _, attribute = name.rpartition(".")
        assert hasattr(import_module(home), attribute) or import_module(name)
