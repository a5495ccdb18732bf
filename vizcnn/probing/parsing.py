"""Text of options and arguments that several probes or commands read in the same way."""

from __future__ import annotations


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a text such as `conv1, layer2`, separated by commas; a comma at the end does no harm.

    Raises ValueError, which says what the text should be."""
    names = tuple(name.strip() for name in text.rstrip(", ").split(","))
    if names == ("",):
        return ()
    if not all(names):
        raise ValueError("names with commas between")
    return names
