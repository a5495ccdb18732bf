"""Labels: the names of a network's classes, in the order of its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

from vizcnn.errors import ParameterError


def parse_labels(labels: Any) -> tuple[str, ...] | None:
    """The names of the classes in the order of the output; None for None.

    labels: names in their order; or a mapping, in any order, from numbers to names (`{0: "cat"}`, or `{"0": "cat"}` as
        JSON has it) or from names to numbers (torchvision's `class_to_idx`). The numbers are 0, 1, 2 and so on, each
        once. Raises ParameterError.

        >>> parse_labels({"fox": 1, "cat": 0})
        ('cat', 'fox')
    """
    if labels is None:
        return None
    if isinstance(labels, str | bytes):
        raise ParameterError(
            f"labels are one name per class, got one text, {labels!r}. Give a list: labels=[{labels!r}]"
        )
    if isinstance(labels, set | frozenset):
        raise ParameterError(
            f"labels are names in the order of the output, and a set has no order: got {_shorten(labels)}. Give a list"
        )
    if isinstance(labels, Mapping):
        return _order(labels)
    if not isinstance(labels, Iterable):
        raise ParameterError(f"labels are one name per class, got {labels!r}. Give a list of names")
    return tuple(map(str, labels))


def _order(labels: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names of a mapping by their numbers.

    Where both sides are numbers, as in the `class_to_idx` of digits, {"0": 0, "1": 1, "10": 2}, texts are the names."""
    if labels and all(isinstance(key, str) and _is_number(value) for key, value in labels.items()):
        pairs = [(index(value), str(key)) for key, value in labels.items()]
    elif all(_is_number(key) or (isinstance(key, str) and key.strip().isdecimal()) for key in labels):
        pairs = [(int(key), str(value)) for key, value in labels.items()]
    else:
        raise ParameterError(
            f"labels as a mapping go from numbers to names or from names to numbers, got {_shorten(labels)}"
        )
    numbers = [number for number, _ in pairs]
    counts = Counter(numbers)
    if len(counts) < len(numbers):
        twice = counts.most_common(1)[0][0]
        raise ParameterError(f"labels give class {twice} two names, got {_shorten(labels)}. Give each number once")
    if sorted(numbers) != [*range(len(numbers))]:
        lacking = next(number for number in range(len(numbers)) if number not in counts)
        raise ParameterError(
            f"labels number the classes from 0 without gaps, got none for {lacking} among {len(numbers)} names, "
            f"{min(numbers)} to {max(numbers)}. Name the missing ones, or give a list in the order of the output"
        )
    return tuple(name for _, name in sorted(pairs))


def _is_number(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of numpy, and not True or False."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _shorten(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
