"""What an audit says: a sentence for each finding, and what could have been found."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from vizcnn.results.evidence import Audited, Effect, Finding, Kind, find_usual

HEADINGS: dict[Kind, str] = {
    "shortcut": "Shortcut: copied content decides",
    "part": "Part or background? Varied content or colour decides",
    "suspicion": "Suspicion: not proven",
}

EXPLANATIONS: dict[Kind, str] = {
    "shortcut": "The same px in several images, or the same pattern at another size, half-transparent or compressed, "
    "proven on images that were not searched: with them the class wins or gains, without them it loses or weakens, by "
    "far more than with a control.",
    "part": "It decides as proven as a shortcut does, but its px are no copies. Whether it is the object, a part of "
    "it, or the background, you can say and no measurement can.",
    "suspicion": "Pasting it works, but removing it could not be shown to matter, or too few images have it.",
}

_NAMED = 5  # classes too small, in a sentence
_MOST = 0.5  # of the images, that a network recognises if labels and preparation are right


def describe_finding(finding: Finding) -> list[str]:
    """What was found, in sentences: where, in how many images, what pasting does, what removing does."""
    return [
        _say_where(finding),
        _say_pasted(finding.pasted, finding.label),
        _say_removed(finding.removed, finding.label),
        f"The class usually wins by {finding.usual:.1f} logits; brackets hold 95% intervals.",
    ]


def tell_finding(finding: Finding) -> str:
    """The finding in one sentence."""
    removed = ""
    if finding.removed is not None:
        removed = (
            f"; removed in three ways, {finding.removed.rate:.0%} are lost (control {finding.removed.control:.0%})"
        )
    return (
        f"{finding.kind.upper()} {finding.label}: {name_cue(finding)}, in {finding.share_inside:.0%} of its images and "
        f"{finding.share_outside:.0%} of others. Pasted, {finding.pasted.rate:.0%} become {finding.label} (control "
        f"{finding.pasted.control:.0%}){removed}. Found in {finding.carriers} of "
        f"{_count(finding.tested, 'image')} tested"
    )


def name_cue(finding: Finding) -> str:
    """What decides, and where."""
    if finding.cue == "colour":
        return "its levels of colour"
    if finding.cue == "frame":
        return f"a frame of {finding.thickness} px"
    box, kind = finding.box, {"shortcut": "copied ", "part": "varied ", "suspicion": ""}[finding.kind]
    if finding.copies == "alike":
        kind = "copied and changed "
    size = f"{box.right - box.left:.0f} x {box.bottom - box.top:.0f} px"
    return f"a {kind}patch of {size} at x {box.left:.0f}, y {box.top:.0f}"


def _say_where(finding: Finding) -> str:
    if not finding.carriers:
        return "Not found again in the half that was not searched: shown on the image that it was found in."
    return (
        f"Found {name_cue(finding)}: in {finding.carriers} of {_count(finding.tested, 'image')} of {finding.label} "
        f"({finding.share_inside:.0%}) and in {finding.share_outside:.0%} of other images, none of them "
        f"searched.{_say_likeness(finding)}"
    )


def _say_likeness(finding: Finding) -> str:
    if finding.cue == "colour":
        return ""
    if finding.copies == "alike":
        return (
            " The copies are not the same px: they have the same pattern, perhaps at another size, half-transparent, "
            f"compressed or with other px in it. Its correlation is {finding.likeness:.2f} in the median, and none of "
            "the other images compared comes near."
        )
    return f" The likeness of the copies is {finding.likeness:.2f} (1: the same px)."


def _say_pasted(effect: Effect, label: str) -> str:
    return (
        f"Pasted into {_count(effect.images, 'image')} of other classes, {effect.rate:.0%} become {label}, with the "
        f"control {effect.control:.0%}; the margin grows by {_say_interval(effect)} more than with the control."
    )


def _say_removed(effect: Effect | None, label: str) -> str:
    if effect is None:
        return "Removing was not tested: no image to test on, or pasting did too little."
    return (
        f"Removed from {_count(effect.images, 'image')} in three ways each, {effect.rate:.0%} of the results are no "
        f"longer {label}, with the control {effect.control:.0%}; the margin falls by {_say_interval(effect)} more than "
        "with the control."
    )


def _say_interval(effect: Effect) -> str:
    if not isfinite(effect.low):
        return f"{effect.difference:.1f} (one image, no interval)"
    return f"{effect.difference:.1f} [{effect.low:.1f}, {effect.high:.1f}] logits"


def describe_audit(audit: Audited) -> Iterator[str]:
    """All of it, a line each: the findings, or that there are none, what could have been found, and what was left."""
    yield from map(tell_finding, audit.findings)
    if not any(finding.kind == "shortcut" for finding in audit.findings):
        yield tell_result(audit)
    yield from describe_rest(audit)


def tell_result(audit: Audited) -> str:
    """What came out, in one line."""
    kinds = [finding.kind for finding in audit.findings]
    images = _count(audit.images, "image")
    if not kinds:
        return f"Stopped before anything was proven in {images}" if audit.partial else f"Nothing was found in {images}"
    found = "proven until it was stopped" if audit.partial else "found"
    shortcuts, parts, rest = (kinds.count(kind) for kind in ("shortcut", "part", "suspicion"))
    said = [_count(shortcuts, "shortcut") if shortcuts else f"No shortcut was {found} in {images}"]
    said += [f"{_count(parts, 'finding')} for you to judge: part or background?"] * bool(parts)
    said += [f"{_count(rest, 'suspicion')} that {'is' if rest == 1 else 'are'} not proven"] * bool(rest)
    return "; ".join(said)


def describe_rest(audit: Audited) -> Iterator[str]:
    """What could have been found, and what was left out, a line each."""
    yield say_limits(audit)
    right, given = sum(each.images for each in audit.classes), sum(each.given for each in audit.classes)
    if right < _MOST * given:
        yield (
            f"The network recognises only {right:,} of {_count(given, 'image')} as their class, and only these can "
            "show by what. If that is unexpected, check the order of its class names and how it wants images prepared"
        )
    if audit.repeats:
        yield f"{_count(len(audit.repeats), 'image')} show the same picture as another one, which counts once"
    small = [each.label for each in audit.classes if each.could_find is None]
    if small:
        named = ", ".join(small[:_NAMED]) + (f" and {len(small) - _NAMED} more" if len(small) > _NAMED else "")
        yield f"Too few images, of it or of other classes, to prove anything of: {named}"
    if audit.untested:
        yield f"{_count(audit.untested, 'suspect')} of low rank left untested, to keep to the limit of runs"
    if audit.partial:
        yield "Stopped early: this is what was proven until then, and more may be there"


def say_limits(audit: Audited) -> str:
    """The smallest share of a class that could have been proven."""
    usual = find_usual(audit.classes)
    if usual is None:
        return (
            "No class has enough images to prove anything: that takes 8 of the class that the network recognises, and "
            "8 of other classes in each half, so 16 and more"
        )
    return (
        f"What can be proven here: a copied cue in {usual.could_find:.0%} or more of a class of "
        f"{usual.images} images. In fewer images, or where it is no copy, a shortcut may be there and not be seen"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)
