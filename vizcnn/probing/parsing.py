"""Texts of the command line as values, where several probes and commands read the same kind of text."""

from __future__ import annotations


def comma_separated(text: str) -> tuple[str, ...]:
    """The names in a text such as `conv1, layer2`; none in one without any. Raises ValueError where a name is missing
    between two commas, or before the first or after the last."""
    names = tuple(name.strip() for name in text.split(","))
    if any(names) and not all(names):
        raise ValueError("names with commas between")
    return tuple(filter(None, names))
