"""The widget of vizcnn.explore on a page of its own, without a kernel: its program, and what it is told. To be seen."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

_PAGE = """<!doctype html><meta charset="utf-8"><title>vizcnn.explore</title>
<body style="margin: 16px"><div id="widget"></div><script type="module">
const view = (packed) => new DataView(Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0)).buffer);
const told = JSON.parse(%s, (_, value) => (value?.packed ? view(value.packed) : value));
const model = { get: (name) => told[name], set() {}, save_changes() {}, on() {}, off() {} };
const url = URL.createObjectURL(new Blob([%s], { type: "text/javascript" }));
const { default: widget } = await import(url);
await widget.render({ model, el: document.getElementById("widget") });
document.body.dataset.ready = "true";
</script></body>"""


def write_page(to: Path) -> None:
    """Write the page: a bundled network and photograph, with a part covered."""
    from vizcnn import explore, load
    from vizcnn.exploring.assembly import assemble_script
    from vizcnn.exploring.session import Session

    explored = explore(load("tiny"), ["sample:grace_hopper", "sample:mosaic"], methods=["occlusion", "cam", "saliency"])
    explored.cover(46, 22, 18, 20)  # where covering costs most
    told = {"status": {"done": "", "busy": "", "share": None}, **dict(Session(explored).begin())}
    text = json.dumps(told, default=lambda held: {"packed": b64encode(held).decode()})
    parts = (json.dumps(part).replace("<", "\\u003c") for part in (text, assemble_script()))
    to.write_text(_PAGE % tuple(parts), encoding="utf-8")
