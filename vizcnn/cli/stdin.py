"""Standard input as an image: what `-` stands for among a command's images."""

from __future__ import annotations

import io
import sys

from vizcnn.errors import ImageError

STDIN = "-"


class StandardInput(io.BytesIO):
    """What came in, as a file that can be read again."""

    name = "stdin"


def read_stdin() -> StandardInput:
    """Read standard input to its end. Raises ImageError where nothing comes from it."""
    remedy = "Send an image to it, as in: vizcnn cam - < photo.jpg (a file of this name is ./-)"
    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError(f"- is an image that standard input holds, and nothing is sent to it. {remedy}")
    data = sys.stdin.buffer.read()
    if not data:
        raise ImageError(f"- is an image that standard input holds, and it is empty. {remedy}")
    return StandardInput(data)
