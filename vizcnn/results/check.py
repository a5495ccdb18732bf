"""Check: what is known of a network at first contact, and which probes work on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from vizcnn.results.table import Table

WORKS, WITH_TARGET, FAILS, UNKNOWN = "yes", "with a target", "no", "not known"
COLUMNS = ("probe", "works", "target", "takes", "reason")

_WIDTH, _INDENT, _NAME = 80, 10, 14  # letters: of a line, before what a section says, of a probe's name
_CLASSES = 3  # classes named at the beginning


@dataclass(frozen=True)
class Check(Table):
    """What `vizcnn.check` has found: a row for each probe, and the facts about the network.

    rows: the probe; whether it works (`yes`, `with a target`, `no`, `not known`); the target that it was asked with
        where it needs one; what it would look at; why it does not work, or not without a target, and what to do.
    facts: plain values under `model`, `input`, `output`, `sample` and `run`, as in the JSON object.
    """

    facts: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {**self.facts, "probes": rows}

    def describe(self) -> str:
        """The facts and the verdicts in sections, in lines of at most 80 letters."""
        return "\n".join([*self._describe_facts(), "", *self._describe_probes()])

    def _describe_facts(self) -> Iterator[str]:
        model = self.facts["model"]
        yield from wrap(
            f"{model['name']}: {model['network']}, {model['parameters']:,} parameters, weights "
            f"{model['weights_sha256'][:16]}",
            _WIDTH,
        )
        for note in model["notes"]:
            yield from wrap(note, _WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield ""
        sections = {
            "Input": _describe_input(self.facts["input"]),
            "Output": _describe_output(self.facts["output"]),
            "Sample": _describe_sample(self.facts["sample"]),
            "Runs": _describe_run(self.facts["run"]),
        }
        for title, sentences in sections.items():
            yield from _lay_out(title, sentences)

    def _describe_probes(self) -> Iterator[str]:
        for title, state in (("Works", WORKS), ("With -t", WITH_TARGET), ("Does not", FAILS), ("Not known", UNKNOWN)):
            rows = [dict(zip(self.columns, map(str, row), strict=True)) for row in self.rows if row[1] == state]
            yield from _lay_out(title, [line for row in rows for line in _describe_verdict(row, state)])


def _lay_out(title: str, paragraphs: Iterable[str]) -> Iterator[str]:
    """A section: its title at the left, and paragraphs beside it."""
    lines = [line for text in paragraphs for line in _wrap_paragraph(text)]
    for i, line in enumerate(lines):
        yield f"{title if i == 0 else '':{_INDENT}}{line}".rstrip()


def _wrap_paragraph(text: str) -> list[str]:
    """The lines of a paragraph. What begins with a column, such as a probe's name, goes on below what stands behind."""
    head, tab, rest = text.partition("\t")
    room = _WIDTH - _INDENT
    if not tab:
        return wrap(text, room, break_long_words=False) or [""]
    lines = wrap(rest, room - _NAME, break_long_words=False) or [""]
    return [f"{head:{_NAME}}{lines[0]}".rstrip(), *(f"{'':{_NAME}}{line}" for line in lines[1:])]


def _describe_verdict(row: Mapping[str, str], state: str) -> Iterator[str]:
    if state == WITH_TARGET:
        yield f"{row['probe']}\t-t {row['target']}"
        yield f"\t{row['reason']}"
    else:
        yield f"{row['probe']}\t{row['takes'] if state == WORKS else row['reason']}"


def _describe_input(about: Mapping[str, Any]) -> Iterator[str]:
    height, width = about["size"]
    way = "stretched to that"
    if about["fit"] == "crop":
        shorter = f"scaled to {about['resize']} px at the shorter side" if about["resize"] else "scaled to cover that"
        way = f"{shorter} and cut"
    yield f"{about['channels']} x {height} x {width}; photographs are {way} ({about['interpolation']})"
    yield f"mean {_list_numbers(about['mean'])}; std {_list_numbers(about['std'])}"


def _list_numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{each:.3g}" for each in numbers)


def _describe_output(about: Mapping[str, Any]) -> Iterator[str]:
    head = f": {about['head']}" if about["head"] else ""
    yield f"{about['returned']}{head}"
    labels = about["labels"]
    if labels:
        named = ", ".join(labels[:_CLASSES]) + (f", ... {labels[-1]}" if len(labels) > _CLASSES else "")
        yield f"{len(labels)} classes: {named}"
    elif about["classes"] == 1:
        yield "one number: Model(labels=[NEGATIVE, POSITIVE]) names the two classes that it tells apart"
    elif about["classes"]:
        yield f"{about['classes']} classes without names (Model(labels=...) gives them)"


def _describe_sample(about: Mapping[str, Any]) -> Iterator[str]:
    yield about["name"] + (f", {about['remark']}" if about["remark"] else "")
    if about["error"]:
        yield about["error"]
    for answer in about["answers"]:
        share = answer["probability"]
        said = f"{answer['value']:.4g}" if share is None else f"{share:.1%}"
        yield f"{said:>7}  {answer['label']}"
    if about["asked"]:
        yield f"target {about['asked']}: {about['score']:.4g}"


def _describe_run(about: Mapping[str, Any]) -> Iterator[str]:
    time = f"{about['seconds']:.3g} s for one image" if about["seconds"] is not None else "not for one image"
    yield f"on {about['device']} in {about['dtype']}, {time}"
