"""Text of options and arguments that several probes or commands read in the same way."""

from __future__ import annotations


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a text such as `conv1, layer2`, separated by commas; a comma too many does no harm."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
