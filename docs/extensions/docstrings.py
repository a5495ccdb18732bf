"""Docstrings as reStructuredText: the house writes them to be read as they stand, with blocks that are marked here.

A block in which each line begins with names and a colon is a list of fields; the block `Options:` at the end lists the
options of a probe; indented blocks are formulas, or examples where they begin with `>>>`; columns that are set with
spaces stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


_FIELD = re.compile(r"([a-z_]\w*(?:(?:, | and )[a-z_]\w*)*):(?: (.+))?")
_COLUMNS = re.compile(r"\S {2,}\S")  # of a table that is set with spaces
_CODE = re.compile(r"(`[^`]*`)")
_OPTION = re.compile(r"(\w+): (.+) = (.+)")


def format_docstring(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    return [line for block in _split("\n".join(lines)) for line in [*_format_block(block), ""]]


def _split(text: str) -> Iterator[list[str]]:
    """The blocks between blank lines; indented ones that follow each other are one."""
    blocks = [block.split("\n") for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]
    while blocks:
        block = blocks.pop(0)
        while blocks and _is_indented(block) and _is_indented(blocks[0]):
            block = [*block, "", *blocks.pop(0)]
        yield block


def _is_indented(block: list[str]) -> bool:
    return all(line.startswith("    ") for line in block if line)


def _format_block(block: list[str]) -> list[str]:
    if block[0].lstrip().startswith(">>>"):
        return dedent("\n".join(block)).split("\n")
    if _is_indented(block):
        return ["::", "", *block]
    if any(_COLUMNS.search(line) for line in block):
        return ["::", "", *(f"    {line}" for line in block)]
    if block[0] == "Options:":
        return _format_options(block[1:])
    fields, rest = _split_fields(block)
    return [*_format_fields(fields), "", *(_escape(line.strip()) for line in rest)]


def _split_fields(block: list[str]) -> tuple[list[str], list[str]]:
    """The fields that a block begins with, and the sentences behind them; a sentence with a colon in it is no field."""
    end = next((i for i, line in enumerate(block) if not (line.startswith(" ") or _FIELD.fullmatch(line))), len(block))
    if end < len(block) and not block[end][0].isupper():
        return [], block
    return block[:end], block[end:]


def _format_fields(block: list[str]) -> list[str]:
    made, as_it_is = [], False
    for line in block:
        field = None if line.startswith(" ") else _FIELD.fullmatch(line)
        if field:
            as_it_is = field[2] is None  # a table of its own, with room for names at the left
            made += [f"* **{_escape(field[1])}**: {_escape(field[2] or '') or '::'}", *([""] if as_it_is else [])]
        else:
            made.append(f"  {line}" if as_it_is else f"  {_escape(line.strip())}")
    return made


def _format_options(lines: list[str]) -> list[str]:
    """`name: type = default` and, further in, what the option says."""
    made = ["**Options**", ""]
    for line in lines:
        option = _OPTION.fullmatch(line.strip())
        if option and not line.startswith("        "):
            made += [f"* **{_escape(option[1])}** ({_escape(option[2])}, by default ``{option[3]}``)"]
        else:
            made += ["  " + _escape(line.strip())]
    return made


def _escape(text: str) -> str:
    """The text with its own signs kept as they are, except between backticks."""
    return "".join(
        part if part.startswith("`") else re.sub(r"[*|_@\\]", r"\\\g<0>", part) for part in _CODE.split(text)
    )


def _rewrite(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = format_docstring(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
