"""How options and arguments are read from text, where several places read the same."""

from __future__ import annotations


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a text such as `conv1, layer2`, separated by commas; a comma at the end does no harm.

    Raises ValueError, which says what the text should be."""
    found = tuple(name.strip() for name in text.rstrip(", ").split(","))
    if found == ("",):
        return ()
    if not all(found):
        raise ValueError("names with commas between")
    return found
