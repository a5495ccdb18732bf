"""The report of an audit: one page of HTML that needs nothing else, and prints well."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Sequence

from vizcnn.errors import escape_invisible
from vizcnn.results.audit_words import EXPLANATIONS, HEADINGS, describe_finding, describe_rest, name_cue, tell_result
from vizcnn.results.evidence import Audited, Finding

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #d9d9d9; padding-top: 1rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin-bottom: .3rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.muted { color: #5c5c5c; }
.result { font-size: 1.15rem; font-weight: 600; }
img { max-width: 100%; height: auto; border: 1px solid #d9d9d9; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #d9d9d9; vertical-align: top;
  overflow-wrap: anywhere; }
th, td.number, td:nth-child(2) { overflow-wrap: normal; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) {
  table { display: block; overflow-x: auto; font-size: .8rem; }
  th, td { padding-right: .5rem; }
  td:not(.number) { min-width: 4rem; }
}
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
@media print {
  body { max-width: none; margin: 0; font-size: 10.5pt; }
  section { break-before: page; }
  h2, h3 { break-after: avoid; }
  img { max-height: 20cm; border: 0; }
  tr, p { break-inside: avoid; }
  details { display: none; }
}
"""


def write_page(audit: Audited, sheets: Sequence[bytes]) -> str:
    """The report as HTML, with the sheet of each finding, a .png, inside. Names may hold anything."""
    title = f"Audit of {audit.provenance.model}"
    lines = [
        "<!DOCTYPE html>",
        f'<html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style>",
        f"<h1>{_escape(title)}</h1>",
        *_write_summary(audit),
        *_write_findings(audit, sheets),
        *_write_classes(audit),
        "<details><summary>All numbers, and where they come from</summary>",
        f"<pre>{_escape(json.dumps(audit.manifest(), indent=2))}</pre></details></html>",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return html.escape(escape_invisible(text))


def _write_summary(audit: Audited) -> Iterator[str]:
    known = "as the data set says" if audit.labelled else "as the network predicts them"
    yield f'<p class="muted">{audit.images:,} images, {len(audit.classes)} classes {known}.<br>'
    yield f"{_escape(audit.small_print)}</p>"
    yield f'<p class="result">{_escape(tell_result(audit))}</p>'
    yield from (f"<p>{_escape(line)}.</p>" for line in describe_rest(audit))
    if audit.findings:
        yield "<table><tr><th>class</th><th>finding</th><th>what</th>"
        yield '<th class="number">pasted</th><th class="number">control</th>'
        yield '<th class="number">removed</th><th class="number">control</th></tr>'
        yield from (_write_row(number, finding) for number, finding in enumerate(audit.findings, 1))
        yield "</table>"
        yield '<p class="muted">Pasted: the share of images of other classes that become the class when the cue is '
        yield "pasted in. Removed: the share of its own images that the class loses when the cue is taken away, in "
        yield "three ways each. Control: the share when the same is done to other px: as many at another place, or a "
        yield "frame further in.</p>"


def _write_row(number: int, finding: Finding) -> str:
    shares = [finding.pasted.rate, finding.pasted.control]
    shares += [finding.removed.rate, finding.removed.control] if finding.removed else []
    cells = [f"{share:.0%}" for share in shares] + [""] * (4 - len(shares))
    return (
        f'<tr><td><a href="#finding-{number}">{_escape(finding.label)}</a></td><td>{finding.kind}</td>'
        f"<td>{_escape(name_cue(finding))}</td>"
        + "".join(f'<td class="number">{cell}</td>' for cell in cells)
        + "</tr>"
    )


def _write_findings(audit: Audited, sheets: Sequence[bytes]) -> Iterator[str]:
    kind = ""
    for number, (finding, sheet) in enumerate(zip(audit.findings, sheets, strict=True), 1):
        yield f'<section id="finding-{number}">'
        if finding.kind != kind:
            kind = finding.kind
            yield f"<h2>{HEADINGS[finding.kind]}</h2>"
            yield f'<p class="muted">{EXPLANATIONS[finding.kind]}</p>'
        words = " ".join(describe_finding(finding))
        yield f"<h3>{_escape(finding.label)}: {_escape(name_cue(finding))}</h3>"
        picture = base64.b64encode(sheet).decode()
        yield f'<img alt="{_escape(words)}" src="data:image/png;base64,{picture}">'
        yield f'<p class="muted">Images with it: {_escape(", ".join(finding.sheet.names))}</p></section>'


def _write_classes(audit: Audited) -> Iterator[str]:
    yield "<section><h2>What could have been found</h2>"
    yield '<p class="muted">The share of a class that must carry a copied cue to be proven here: three images with it '
    yield "are needed in each half of the class. A cue in fewer images, or one whose px vary, may be there and not be "
    yield "seen; so may one that all classes share.</p>"
    yield '<table><tr><th>class</th><th class="number">images recognised</th><th class="number">share</th></tr>'
    for each in audit.classes:
        share = "too few images" if each.could_find is None else f"{each.could_find:.0%}"
        yield f'<tr><td>{_escape(each.label)}</td><td class="number">{each.images:,} of {each.given:,}</td>'
        yield f'<td class="number">{share}</td></tr>'
    yield "</table></section>"
