"""Assembly: the widget's program and style, joined from the atlas's own files and two of ours.

A notebook loads one text as a module, and puts a page of its own around the widget. So the scripts stand one after the
other, as the atlas's page reads them, and the stylesheet is for a shadow tree: what the atlas says of the page's root
is said of the widget's."""

from __future__ import annotations

import json
import re
from pathlib import Path

_ATLAS = Path(__file__).parents[1] / "site" / "static"
_OURS = Path(__file__).parent / "static"
_SCRIPTS = ("elements", "words", "overlay")  # of the atlas, in the order in which they are read
_ROOT = re.compile(r":root((?:\[[^\]]*\]|:not\([^)]*\))*)")


def assemble_script() -> str:
    """The module that shows the widget: its default export has `render`."""
    scripts = [_ATLAS / f"{name}.js" for name in _SCRIPTS] + [_OURS / "explore.js"]
    parts = [path.read_text(encoding="utf-8") for path in scripts]
    style = json.dumps(assemble_style())
    return "\n".join(["const ATLAS = {};", *parts, f"export default ATLAS.explore.makeWidget({style});\n"])


def assemble_style() -> str:
    """The atlas's stylesheet and ours, for a shadow tree: `:root[data-theme]` is `:host([data-theme])` there."""
    parts = [
        (folder / name).read_text(encoding="utf-8") for folder, name in ((_ATLAS, "atlas.css"), (_OURS, "explore.css"))
    ]
    return _ROOT.sub(lambda found: f":host({found[1]})" if found[1] else ":host", "\n".join(parts))
