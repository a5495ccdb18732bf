"""Refuses a site whose pages load anything from outside: it needs no connection, and tells nobody who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


_LOADED = (
    re.compile(r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|srcset|data)=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect|shortcut|modulepreload))[^>]*?\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"'\s)]+)"),
)  # fmt: skip


def find_loaded(site: Path) -> Iterator[tuple[Path, str]]:
    """The pages and style sheets of a built site that load something from another place, with its address."""
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = path.read_text(encoding="utf-8")
        for pattern in _LOADED:
            yield from ((path, found) for found in pattern.findall(text))


def _refuse(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        loaded = [f"{path.relative_to(app.outdir)} loads {address}" for path, address in find_loaded(Path(app.outdir))]
        if loaded:
            from sphinx.errors import ExtensionError

            raise ExtensionError(f"the site must need no connection: {'; '.join(loaded[:5])}")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", _refuse)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
