"""Checking: first contact with a network. What it is, what it says of a sample, and which probes work on it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vizcnn.errors import ParameterError, ProbeNotFound, TargetError, VizcnnError, VizcnnWarning
from vizcnn.inputs.images import open_photo
from vizcnn.inputs.photo import Photo
from vizcnn.inputs.tensors import to_photo
from vizcnn.models.black_box import refuse_black_box
from vizcnn.models.borrowing import borrow
from vizcnn.models.clean import run_clean
from vizcnn.models.head import Head
from vizcnn.models.model import Model
from vizcnn.models.two_classes import expand_probabilities
from vizcnn.probing import registry
from vizcnn.probing.facts import Facts, observe
from vizcnn.probing.probe import Probe
from vizcnn.probing.subject import Question, Subject
from vizcnn.results.check import COLUMNS, FAILS, UNKNOWN, WITH_TARGET, WORKS, Check

SAMPLE = "sample:grace_hopper"

_ANSWERS = 5
_HEADS: dict[Head, str] = {
    "logits": "logits, of which the softmax is the probability",
    "softmax": "probabilities that add up to 1",
    "log-softmax": "logarithms of probabilities",
    "sigmoid": "a probability for each class (sigmoid)",
    "sigmoid-logits": "a logit for each class, of which the sigmoid is the probability",
    "scores": "numbers of which nothing shows that they are logits or probabilities",
}
_ONE = "a logit, of which the sigmoid is the probability"


def check(model: Model) -> Check:
    """What a network is, what it says of a sample image, and which probes work on it: a Table with a row for each.

    The network runs a few times on the photograph `sample:grace_hopper`, once of them backward, and no probe is run.
    Networks of other than 1 or 3 channels see a made-up image. A probe that does not work is listed with the error that
    it would raise, which holds the remedy.

        >>> import vizcnn
        >>> found = vizcnn.check(vizcnn.load("tiny"))
        >>> found.facts["sample"]["answers"][0]["label"]
        'military uniform'
        >>> [row[0] for row in found.rows if row[1] == "no"]
        []

    Raises ParameterError for what is no Model, and UnsuitableNetwork for a network that no probe takes."""
    if not isinstance(model, Model):
        raise ParameterError(
            f"check needs a vizcnn.Model, got {type(model).__name__}. "
            "Wrap a network: vizcnn.Model(network, size=..., mean=..., std=...), or vizcnn.load('tiny')"
        )
    with borrow(model, "check"), torch.no_grad():
        identity = model.provenance()  # before any run: some count their runs in a buffer
        photo, image, source, remark = _open_sample(model)
        facts = observe(model, image, photo)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VizcnnWarning)  # of probes, which say it again when they are called
            verdicts = [_judge_by_name(name, facts) for name in registry.list_names()]
        raw, seconds = _run_once(facts)
        about = {
            "model": _describe_model(model, identity),
            "input": dict(identity["input"]),
            "output": _describe_output(facts, raw),
            "sample": {"name": photo.name, "source": source, "remark": remark, **_describe_answers(facts)},
            "run": _describe_run(model, seconds),
        }
        subject = _make_subject(model, identity, image)
    rows = tuple((each.probe, each.works, each.target, each.takes, each.reason) for each in verdicts)
    return Check(subject.provenance(), COLUMNS, rows, (), about)


@dataclass(frozen=True)
class Verdict:
    """Whether a probe works on a network: one of `yes`, `with a target`, `no` and `not known`.

    target: the one to give, as the command line takes it. takes: what the probe would look at. reason: why it does not
    work, or not without that target, and the remedy."""

    probe: str
    works: str
    target: str = ""
    takes: str = ""
    reason: str = ""


def judge(probe: Probe[Any], facts: Facts) -> Verdict:
    """Whether a probe works on the network that the facts are about, which must still be borrowed."""
    name = probe.name()
    try:
        if probe.needs_network:
            refuse_black_box(facts.model.network, facts.model.name)
        return Verdict(name, WORKS, takes=probe.rehearse(facts))
    except NotImplementedError:
        return Verdict(name, UNKNOWN, reason="the probe does not say what it needs (Probe.rehearse). Try it")
    except TargetError as error:
        if not probe.needs_target or facts.target is None:
            return Verdict(name, FAILS, reason=str(error))
        try:
            takes = probe.rehearse(replace(facts, given=True))
        except VizcnnError as other:
            return Verdict(name, FAILS, facts.target.spec, reason=str(other))
        return Verdict(name, WITH_TARGET, facts.target.spec, takes, str(error))
    except VizcnnError as error:
        return Verdict(name, FAILS, reason=str(error))
    except Exception as error:  # a third party's
        return Verdict(name, UNKNOWN, reason=f"its rehearsal failed: {type(error).__name__}: {error}. Try it")


def _judge_by_name(name: str, facts: Facts) -> Verdict:
    try:
        return replace(judge(registry.get(name)(), facts), probe=name)
    except ProbeNotFound as error:  # a broken plugin
        return Verdict(name, FAILS, reason=str(error))


def _open_sample(model: Model) -> tuple[Photo, Tensor, str, str]:
    """The sample as a photograph and as an input (1, C, H, W), where it is from, and what is to be said of it."""
    if model.input.channels in (1, 3):
        photo = open_photo(SAMPLE)
        return photo, model.prepared(photo)[0][None], SAMPLE, "in grey" * (model.input.channels == 1)
    shape = (1, model.input.channels, *model.input.size)
    made = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    return to_photo(made[0]), made, "", f"made-up noise, as no sample has {model.input.channels} channels"


def _make_subject(model: Model, identity: Mapping[str, Any], image: Tensor) -> Subject:
    """A subject without images, for the provenance."""
    clean = run_clean(model, image[:0], ())
    return Subject(Question("check", {}, ""), model, identity, image[:0], (), (), clean, seed=0, progress=False)


def _describe_model(model: Model, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": model.name,
        "network": type(model.network).__name__,
        "parameters": sum(each.numel() for each in model.network.parameters()),
        "weights_sha256": identity["weights_sha256"],
        "notes": [*model.notes],
    }


def _run_once(facts: Facts) -> tuple[Any, float | None]:
    """What the network returns for the image, and the seconds that this takes; None where it does not run."""
    if facts.failure:
        return None, None
    begin = time.perf_counter()
    raw = facts.model(facts.image)
    return raw, time.perf_counter() - begin


def _describe_output(facts: Facts, raw: Any) -> dict[str, Any]:
    model, head, output = facts.model, facts.clean.head if facts.clean else None, facts.output
    classes = int(output.shape[1]) if output is not None and output.dim() >= 2 else None
    known = head if classes else None
    return {
        "returned": "nothing" if facts.failure else describe_structure(raw),
        "head": (_ONE if (known, classes) == ("logits", 1) else _HEADS[known]) if known else "",
        "kind": known,
        "classes": classes,
        "labels": [*(model.labels or ())],
    }


def describe_structure(value: Any) -> str:
    """What a network returns, in words: `tensor 1 x 1000`, `dict of out (tensor 1 x 21 x 64 x 64)`."""
    if isinstance(value, Tensor):
        return f"tensor {' x '.join(map(str, value.shape))}" if value.dim() else "tensor of one number"
    if isinstance(value, Mapping):
        parts = [f"{key} ({describe_structure(each)})" for key, each in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        named = {each.name: getattr(value, each.name) for each in fields(value)}
        parts = [f"{key} ({describe_structure(each)})" for key, each in named.items() if each is not None]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = [*map(describe_structure, value)]
    else:
        return type(value).__name__
    return f"{type(value).__name__} of {', '.join(parts) or 'nothing'}"


def _describe_answers(facts: Facts) -> dict[str, Any]:
    """The classes with the largest output, or the score of what was asked instead."""
    error = facts.failure or facts.refusal
    found: dict[str, Any] = {"answers": [], "asked": "", "score": None, "error": str(error) if error else ""}
    if facts.clean is None or facts.target is None:
        return found
    if facts.unclear or facts.output is None or facts.output.dim() != 2:
        return found | {"asked": str(facts.target), "score": float(facts.clean.scores[0, 0])}
    outputs, model = facts.output.float(), facts.model
    classes = len(model.labels or ()) or outputs.shape[1]  # one output may tell two classes apart
    shares = None if facts.clean.head == "scores" else expand_probabilities(outputs, facts.clean.head, classes)[0]
    values = outputs[0] if shares is None or len(shares) == outputs.shape[1] else shares
    best = values.topk(min(_ANSWERS, len(values))).indices.tolist()  # shares of many may be equal by rounding
    return found | {
        "answers": [
            {
                "label": model.class_name(i),
                "class": i,
                "value": float(values[i]),
                "probability": None if shares is None else float(shares[i]),
            }
            for i in best
        ]
    }


def _describe_run(model: Model, seconds: float | None) -> dict[str, Any]:
    return {"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch."), "seconds": seconds}
