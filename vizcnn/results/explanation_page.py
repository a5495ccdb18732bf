"""The page of an explanation as .html: whole in one file, without a script, for paper too, light or dark."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from vizcnn.errors import escape_invisible
from vizcnn.inputs.photo import Pixels, to_floats
from vizcnn.results.explained import Answer, Explained
from vizcnn.results.explanation_panels import SIDE, Panel, Section, list_sections, pack_sections
from vizcnn.results.explanation_words import write_sentences
from vizcnn.results.photos import as_bytes, shrink

_COLUMNS = 4
_QUALITY = 90  # of the pictures, which are JPEG: a page stays under a MB

_LOOK = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --muted: #5c5c5c; --faint: #e2e2e2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #eceff3; --muted: #a3abb6; --faint: #3a414b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h1 span { color: var(--muted); font-weight: 400; }
h2 { font-size: 1.15rem; margin: 0 0 1rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .35rem; }
p { margin: 0 0 .6rem; }
.about { color: var(--muted); margin: .3rem 0 1.8rem; }
.top, .row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0 1.5rem; }
.panels { display: grid; gap: 1.5rem; }
.span-1 { grid-column: span 1; } .span-2 { grid-column: span 2; }
.span-3 { grid-column: span 3; } .span-4 { grid-column: span 4; }
.span-1 .panels { grid-template-columns: minmax(0, 1fr); }
.span-2 .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.span-3 .panels { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.span-4 .panels { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.words { grid-column: span 2; font-size: 1.08rem; }
section { border-top: 1px solid var(--faint); margin-top: 2.2rem; padding-top: 1.2rem; }
img { display: block; width: 100%; border-radius: 3px; }
figure { margin: 0; }
figcaption { font-size: .84rem; line-height: 1.4; margin-top: .5rem; }
figcaption p { margin: 0 0 .3rem; }
.verdict { font-weight: 600; }
.muted, .note { color: var(--muted); }
.note { font-size: .88rem; margin: 1rem 0 0; }
dl { margin: 0; font-size: .92rem; }
dl div { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; margin-bottom: .55rem; }
dt, dd { margin: 0; }
.asked { font-weight: 600; }
.bar { grid-column: span 2; height: .4rem; margin-top: .15rem; background: var(--faint); }
.bar i { display: block; height: 100%; background: var(--muted); }
.asked .bar i { background: var(--ink); }
footer { border-top: 1px solid var(--faint); color: var(--muted); font-size: .8rem; margin-top: 2.5rem;
  padding-top: 1rem; }
pre { white-space: pre-wrap; }
@media screen and (max-width: 48rem) {
  .top, .row { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .row section { grid-column: span 2; }
  .row section .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .words { margin-top: 1.2rem; }
}
@media screen and (max-width: 24rem) {
  body { padding: 1.5rem 1rem; }
  .top, .row, .row section .panels { grid-template-columns: minmax(0, 1fr); }
  .words, .row section { grid-column: span 1; }
  .top { gap: 1rem; }
}
@media print {
  :root { font-size: 9pt; }
  body { max-width: none; padding: 0; }
  .row { break-inside: avoid; }
  section { margin-top: 1.4rem; padding-top: .8rem; }
  figure, h2 { break-inside: avoid; }
  h2 { break-after: avoid; }
  details { display: none; }
}
"""


def write_page(found: Explained, manifest: Mapping[str, Any]) -> str:
    """The page as a text. manifest: what stands in the details at its end."""
    title = f"{found.photo.name}: {found.asked.label}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_escape(title)}</title><style>{_LOOK}</style></head><body>",
            *_write_top(found),
            *(line for row in pack_sections(list_sections(found), _COLUMNS) for line in _write_row(row)),
            f"<footer><p>{_escape(found.small_print)}</p>",
            "<details><summary>Everything in numbers</summary>",
            f"<pre>{_escape(json.dumps(manifest, indent=2))}</pre></details></footer>",
            "</body></html>\n",
        ]
    )


def _escape(text: str) -> str:
    return html.escape(escape_invisible(text))


def _write_top(found: Explained) -> Iterator[str]:
    yield f"<header><h1>{_escape(found.asked.label)} <span>{_escape(found.asked.amount)}</span></h1>"
    about = f"{found.photo.name}, as {found.provenance.model} sees it"
    yield f'<p class="about">{_escape(about)}</p></header>'
    yield '<div class="top">'
    yield _write_picture(paint_photo(found), f"The photograph {found.photo.name}")
    yield "<dl>"
    for answer in found.answers:
        yield _write_answer(answer, is_asked=answer.number == found.asked.number)
    yield "</dl>"
    yield '<div class="words">'
    for sentence in write_sentences(found):
        yield f"<p>{_escape(sentence)}</p>"
    yield "</div></div>"


def _write_answer(answer: Answer, *, is_asked: bool) -> str:
    which = ' class="asked"' if is_asked else ""
    share = answer.probability
    bar = "" if share is None else f'<dd class="bar"><i style="width: {share:.2%}"></i></dd>'
    return f"<div{which}><dt>{_escape(answer.label)}</dt><dd>{_escape(answer.amount)}</dd>{bar}</div>"


def _write_row(row: Sequence[Section]) -> Iterator[str]:
    """Sections beside each other, each as wide as its panels."""
    yield '<div class="row">'
    for section in row:
        yield from _write_section(section, len(section.panels) if len(row) > 1 else _COLUMNS)
    yield "</div>"


def _write_section(section: Section, columns: int) -> Iterator[str]:
    yield f'<section class="span-{columns}"><h2>{_escape(section.title)}</h2>'
    if section.panels:
        yield '<div class="panels">'
        for panel in section.panels:
            yield _write_panel(panel)
        yield "</div>"
    if section.note:
        yield f'<p class="note">{_escape(section.note)}.</p>'
    yield "</section>"


def _write_panel(panel: Panel) -> str:
    picture = "" if panel.pixels is None else _write_picture(panel.pixels, panel.alt)
    trust = panel.trust
    said = ""
    if trust:
        reasons = _escape("; ".join(trust.sentences))
        said = f'<p class="verdict">{trust.sign} {trust.verdict}</p><p class="muted">{reasons}</p>'
    words = f"{said}<p>{_escape(panel.caption)}</p>"
    return f"<figure><h3>{_escape(panel.title)}</h3>{picture}<figcaption>{words}</figcaption></figure>"


def _write_picture(pixels: Pixels, alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(as_bytes(pixels)).save(buffer, "jpeg", quality=_QUALITY, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{_escape(alt)}" src="data:image/jpeg;base64,{data}">'


def paint_photo(found: Explained) -> Pixels:
    """The photograph (h, w, 3) in [0, 1], with what the network does not see of it paler."""
    small = shrink(found.photo.held, SIDE)
    pixels = small.repeat(3, 2) if small.shape[2] == 1 else to_floats(small[:, :, :3]).copy()
    step = pixels.shape[0] / found.photo.size[0], pixels.shape[1] / found.photo.size[1]
    top, bottom = (round(edge * step[0]) for edge in (found.seen.top, found.seen.bottom))
    left, right = (round(edge * step[1]) for edge in (found.seen.left, found.seen.right))
    pale = 0.3 * pixels + 0.7
    pale[max(0, top) : bottom, max(0, left) : right] = pixels[max(0, top) : bottom, max(0, left) : right]
    return pale.astype("float32")
