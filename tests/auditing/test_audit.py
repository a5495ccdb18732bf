"""An audit finds what decides a class by construction, and accuses no network that does not look at it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support_audit import CORNER, LABELS, Labels, draw_images, make_model, plant_frames, plant_tags
from torch import Tensor, nn

import vizcnn
from vizcnn.auditing import audit_images
from vizcnn.auditing.proving import pick_pictures, prove
from vizcnn.errors import DegenerateResult, Interrupted, ParameterError, ShapeError, UnsuitableNetwork, VizcnnWarning
from vizcnn.geometry import Box

TAGGED = range(12)  # half of the first class


@pytest.fixture(scope="module")
def images() -> Tensor:
    return draw_images()[0]


@pytest.fixture(scope="module")
def labels() -> Labels:
    return draw_images()[1]


@pytest.fixture(scope="module")
def tagged_audit(images: Tensor, labels: Labels) -> vizcnn.Audit:
    """Of a network that looks at the tag, in images of which half of the first class have it."""
    return audit_images(make_model(use=4), plant_tags(images, TAGGED), labels, progress=False)


def shortcuts(found: vizcnn.Audit) -> list[tuple[str, str]]:
    return [(finding.label, finding.cue) for finding in found.findings if finding.kind == "shortcut"]


def test_a_tag_that_decides_is_a_shortcut_with_its_very_box(tagged_audit: vizcnn.Audit) -> None:
    assert shortcuts(tagged_audit) == [("red", "patch")]
    finding = tagged_audit.findings[0]
    top, left = CORNER
    assert finding.box == Box(top, left, top + 6, left + 6)
    assert finding.index == 0
    assert finding.likeness == pytest.approx(1)
    assert finding.share_outside == 0
    assert 3 <= finding.carriers <= 9
    assert finding.share_inside == finding.carriers / finding.tested
    assert finding.pasted.rate > 0.9
    assert finding.pasted.control < 0.1
    assert finding.removed is not None
    assert finding.removed.low > 2, "the tag is worth 4 logits"
    assert all(box.top == top for box in finding.sheet.boxes)


def test_a_tag_is_found_at_any_place(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(use=4), plant_tags(images, TAGGED, moving=True), labels, progress=False)
    assert shortcuts(found) == [("red", "patch")]
    box = found.findings[0].box
    assert (box.bottom - box.top, box.right - box.left) == (6, 6)


def test_a_network_that_ignores_the_tag_is_innocent(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(use=0), plant_tags(images, TAGGED), labels, progress=False)
    assert not shortcuts(found)
    assert "No shortcut was found in 72 images" in found.describe()


def test_a_tag_in_all_classes_alike_is_no_clue_to_one(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(use=0.2), plant_tags(images, range(0, 72, 2)), labels, progress=False)
    assert not [finding for finding in found.findings if finding.cue == "patch"]


def test_a_frame_that_decides_is_a_shortcut(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(frame=4), plant_frames(images, TAGGED), labels, progress=False)
    assert shortcuts(found) == [("red", "frame")]
    assert found.findings[0].thickness == 2


def test_a_frame_that_is_ignored_is_none(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(frame=0), plant_frames(images, TAGGED), labels, progress=False)
    assert not shortcuts(found)


def test_colour_decides_and_is_never_a_shortcut(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(), images, labels, progress=False)
    assert {finding.label for finding in found.findings if finding.cue == "colour"} == {"red", "green", "blue"}
    assert {finding.kind for finding in found.findings} == {"part"}


def test_the_same_call_finds_the_same(images: Tensor, labels: Labels) -> None:
    tagged = plant_tags(images, TAGGED)
    one, two = (audit_images(make_model(use=4), tagged, labels, seed=3, progress=False) for _ in range(2))
    assert one.summary()["findings"] == two.summary()["findings"]
    assert np.array_equal(one.findings[0].sheet.pasted, two.findings[0].sheet.pasted)


def test_bytes_and_floats_are_the_same_images(images: Tensor, labels: Labels) -> None:
    tagged = (plant_tags(images, TAGGED) * 255).round()
    one = audit_images(make_model(use=4), tagged / 255, labels, progress=False)
    two = audit_images(make_model(use=4), tagged.to(torch.uint8), labels, progress=False)
    assert one.summary()["findings"] == two.summary()["findings"]


def test_predicted_classes_serve_without_labels(images: Tensor) -> None:
    found = audit_images(make_model(use=4), plant_tags(images, TAGGED), progress=False)
    assert shortcuts(found) == [("red", "patch")]
    assert not found.labelled


def test_an_audit_leaves_no_trace(images: Tensor, labels: Labels) -> None:
    model = make_model(use=4)
    model.network.train()
    tagged = plant_tags(images, TAGGED)
    before, state = tagged.clone(), torch.get_rng_state()
    audit_images(model, tagged, labels, progress=False)
    assert torch.equal(tagged, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.network.modules())
    assert all(one.requires_grad and one.grad is None for one in model.network.parameters())


def test_a_black_box_is_audited_by_covering(images: Tensor, labels: Labels) -> None:
    network = make_model(use=4).network

    def answer(inputs: Any) -> Any:
        with torch.no_grad():
            return network(torch.from_numpy(inputs).float()).numpy()

    model = vizcnn.Model(answer, size=32, labels=LABELS, head="logits")
    assert shortcuts(audit_images(model, plant_tags(images, TAGGED), labels, progress=False)) == [("red", "patch")]


def test_screening_that_takes_more_leaves_runs_for_tests(
    images: Tensor, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A black box is covered window by window: in a large folder that alone takes all 18 runs for each image."""
    monkeypatch.setattr("vizcnn.auditing.search.RUNS", 1)
    monkeypatch.setattr("vizcnn.auditing.search.LEAST_RUNS", 1)
    monkeypatch.setattr("vizcnn.auditing.search.TEST_RUNS", 8)
    found = audit_images(make_model(use=4), plant_tags(images, TAGGED), labels, progress=False)
    assert shortcuts(found) == [("red", "patch")]
    assert found.untested


class OneOutput(nn.Module):
    """The lead of the first of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = make_model(use=4).network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return logits[:, :1] - logits[:, 1:].amax(1, keepdim=True)  # type: ignore[no-any-return]


def test_one_output_is_two_classes_and_needs_both_names(images: Tensor) -> None:
    tagged = plant_tags(images, TAGGED)
    model = vizcnn.Model(OneOutput(), size=32, labels=("other", "red"), head="logits")
    assert shortcuts(audit_images(model, tagged, progress=False)) == [("red", "patch")]
    model = vizcnn.Model(OneOutput(), size=32, labels=("red",), head="logits")
    with pytest.raises(UnsuitableNetwork, match="Give the names of both, first of the class below zero"):
        audit_images(model, tagged, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_audited(images: Tensor, dtype: torch.dtype) -> None:
    model = vizcnn.Model(make_model(use=4).network.to(dtype), size=32, labels=LABELS, head="logits")
    assert shortcuts(audit_images(model, plant_tags(images, TAGGED), progress=False)) == [("red", "patch")]


def test_probabilities_are_audited_as_their_logits(images: Tensor, labels: Labels) -> None:
    model = vizcnn.Model(nn.Sequential(make_model(use=4).network, nn.Softmax(1)), size=32, labels=LABELS)
    found = audit_images(model, plant_tags(images, TAGGED), labels, progress=False)
    assert shortcuts(found) == [("red", "patch")]
    assert found.findings[0].pasted.difference == pytest.approx(4, rel=0.2)


def test_too_few_images_are_said_in_words() -> None:
    images, labels = draw_images(per_class=6)
    found = audit_images(make_model(use=4), images, labels, progress=False)
    assert found.findings == ()
    assert found.could_find is None
    assert "No class has enough images to prove anything" in found.describe()
    assert "Too few images, of it or of other classes, to prove anything of: red, green, blue" in found.describe()


@pytest.mark.parametrize("count", [1, 7, 8])
def test_a_class_of_too_few_images_gets_no_finding(images: Tensor, labels: Labels, count: int) -> None:
    tagged = plant_tags(images, range(24))[24 - count :]
    found = audit_images(make_model(use=4), tagged, labels[24 - count :], suspicions=True, progress=False)
    assert any(finding.label == "red" for finding in found.findings) == (count == 8)
    assert ("to prove anything of: red" in found.describe()) == (count < 8)


def test_the_share_that_can_be_proven_is_that_of_a_class_of_the_size_beside_it(images: Tensor, labels: Labels) -> None:
    chosen = [*range(24), *range(24, 40)]  # two classes, of 24 and 16
    found = audit_images(make_model(), images[chosen], [labels[i] for i in chosen], progress=False)
    shares = {each.images: each.could_find for each in found.classes}
    assert set(shares) == {24, 16}
    assert found.could_find == shares[24] != shares[16]
    assert "46% or more of a class of 24 images" in found.describe()


@pytest.mark.parametrize("per_class", [15, 16])
def test_what_a_folder_is_said_to_prove_is_proven(per_class: int) -> None:
    """Two classes of 16 are the smallest: each half has 8 others to paste a cue into."""
    images, labels = draw_images(per_class)
    tagged = plant_tags(images, range(per_class))[: 2 * per_class]
    found = audit_images(make_model(use=4), tagged, labels[: 2 * per_class], progress=False)
    assert (found.could_find is None) == (per_class < 16)
    assert (("red", "patch") in shortcuts(found)) == (per_class == 16)
    assert ("8 of other classes in each half" in found.describe()) == (per_class < 16)


def test_one_class_alone_cannot_be_audited(images: Tensor) -> None:
    with pytest.raises(DegenerateResult, match="takes all images, 24 of them, for one class"):
        audit_images(make_model(), images[:24], progress=False)


def test_a_picture_that_lies_there_several_times_counts_once(images: Tensor, labels: Labels) -> None:
    """Each part of it would be copied px, on both sides of the split."""
    copies = images[:1].repeat(10, 1, 1, 1)
    copies[5:] = (copies[5:] + 0.004).clamp(0, 1)  # saved anew, nearly the same
    together = torch.cat([plant_tags(images, [*TAGGED]), copies])
    known = [*labels, *[labels[0]] * len(copies)]
    found = audit_images(make_model(use=4), together, known, names=[f"{i}.png" for i in range(82)], progress=False)
    assert len(found.repeats) == 9, "ten copies, of a picture that is there without the tag for the first time"
    assert {first for _, first in found.repeats} == {"72.png"}
    assert found.classes[0].images == found.classes[0].given == 25
    assert "9 images show the same picture as another one, which counts once" in found.describe()


class Looks(nn.Module):
    """Two classes: the second where a part of a picture, given by its px, is seen at any place."""

    def __init__(self, part: Tensor) -> None:
        super().__init__()
        pattern = part - part.mean((1, 2), keepdim=True)
        self.match = nn.Conv2d(3, 1, part.shape[1], bias=False)
        self.match.weight.data = (pattern / pattern.square().sum())[None]

    def forward(self, images: Tensor) -> Tensor:
        seen = self.match(images).amax((1, 2, 3))  # (N,)
        return torch.stack([0 * seen, 10 * seen - 6], 1)


def test_offcuts_of_one_photograph_are_no_tag() -> None:
    """What they share are the same px, and go on beyond every box."""
    others, coarse = draw_images(30)[0], torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(3))
    large = nn.functional.interpolate(coarse, (60, 60), mode="bilinear")[0]
    corners = np.random.default_rng(0).permutation(144)[:30]
    offcuts = torch.stack([large[:, 8 + k // 12 : 40 + k // 12, 8 + k % 12 : 40 + k % 12] for k in corners])
    model = vizcnn.Model(Looks(large[:, 24:34, 24:34]), size=32, labels=("other", "thing"), head="logits")
    found = audit_images(model, torch.cat([others, offcuts]), [0] * len(others) + [1] * 30, progress=False)
    assert found.classes[1].images == 30
    assert not shortcuts(found)


def test_labels_that_are_no_classes_are_refused(images: Tensor) -> None:
    with pytest.raises(ParameterError, match="classes of tagged, 0 to 2, or -1 where unknown, got 0 to 7"):
        audit_images(make_model(), images, [0, 7] * 36, progress=False)
    with pytest.raises(ShapeError, match=r"values in \[0, 1\]"):
        audit_images(make_model(), 255 * images, progress=False)


def test_folders_of_digits_are_names_where_classes_have_such(images: Tensor) -> None:
    """Sorted as texts, 10 comes before 2: the number of a class is another one's name."""
    names = ("1", "10", "2")
    known = {f"tensor {i}": names[label] for i, label in enumerate(draw_images()[1])}
    found = vizcnn.audit(make_model(labels=names), images, known, progress=False)
    assert [(each.label, each.images) for each in found.classes] == [("1", 24), ("10", 24), ("2", 24)]
    numbered = torch.utils.data.TensorDataset(images, torch.tensor(draw_images()[1]))
    found = vizcnn.audit(make_model(labels=names), numbered, progress=False)
    assert [(each.label, each.images) for each in found.classes] == [("1", 24), ("10", 24), ("2", 24)]


def test_of_classes_with_one_name_a_torch_dataset_says_which(images: Tensor) -> None:
    numbered = torch.utils.data.TensorDataset(images, torch.tensor(draw_images()[1]))
    numbered.classes = ["crane", "heron", "crane"]  # type: ignore[attr-defined]  # as ImageNet has two
    found = vizcnn.audit(make_model(labels=("crane", "heron", "crane")), numbered, progress=False)
    assert [(each.label, each.index, each.images) for each in found.classes] == [
        ("crane", 0, 24), ("heron", 1, 24), ("crane", 2, 24),
    ]  # fmt: skip


def test_a_number_beyond_the_outputs_is_no_class(images: Tensor) -> None:
    known = {f"tensor {i}": "7" if i < 4 else "blue" for i in range(72)}
    with pytest.warns(VizcnnWarning, match="no class, or several, named '7'"):
        found = vizcnn.audit(make_model(), images, known, progress=False)
    assert [each.label for each in found.classes] == ["blue"]


def test_labels_in_another_order_than_the_outputs_are_said(images: Tensor, labels: Labels) -> None:
    found = audit_images(make_model(), images, [(label + 1) % 3 for label in labels], progress=False)
    assert "The network recognises only 0 of 72 images as their class" in found.describe()
    assert "recognises" not in audit_images(make_model(), images, labels, progress=False).describe().split("prove")[0]


def test_a_network_that_is_not_wrapped_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"an audit needs a vizcnn.Model, got Tagged"):
        vizcnn.audit(make_model().network, "photos")  # type: ignore[arg-type]


def test_labels_that_hold_together_are_refused(images: Tensor) -> None:
    model = vizcnn.Model(nn.Sequential(make_model().network, nn.Sigmoid()), size=32, labels=LABELS, head="sigmoid")
    with pytest.raises(UnsuitableNetwork, match="several may hold at once"):
        audit_images(model, images, progress=False)


def test_what_cannot_be_audited_is_refused(images: Tensor) -> None:
    with pytest.raises(ParameterError, match="per_class must be at least 8"):
        audit_images(make_model(), images, per_class=4)
    with pytest.raises(ShapeError, match="for each of 72 images, got 2"):
        audit_images(make_model(), images, [0, 1])


def interrupt(*_: object) -> object:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["find_suspects", "prove"])
def test_ctrl_c_before_anything_is_proven_says_so(images: Tensor, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(f"vizcnn.auditing.tasks.{step}", interrupt)
    with pytest.raises(Interrupted) as stopped:
        vizcnn.audit(make_model(use=4), list(images), progress=False)
    found = stopped.value.result
    assert found.partial
    assert not found.findings
    assert found.describe().startswith("Stopped before anything was proven in 72 images")


def test_ctrl_c_while_sheets_are_made_loses_none(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def pick(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return pick_pictures(*given)

    monkeypatch.setattr("vizcnn.auditing.run.pick_pictures", pick)
    tagged = plant_tags(images, TAGGED)
    with pytest.raises(Interrupted) as stopped:
        vizcnn.audit(make_model(use=4), tagged, progress=False)
    monkeypatch.undo()
    whole = vizcnn.audit(make_model(use=4), tagged, progress=False)
    assert stopped.value.result.summary()["findings"] == whole.summary()["findings"]


def test_bars_come_to_their_end(images: Tensor, labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[float]] = {}

    class Bar:
        def __init__(self, total: float, label: str, *_: object, shown: bool) -> None:
            self.counts = drawn.setdefault(label, [total, 0]) if shown else [total, 0]

        def update(self, n: float) -> None:
            self.counts[1] += n

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("vizcnn.progress.bar", Bar)
    found = audit_images(make_model(use=4), plant_tags(images, TAGGED), labels)
    assert [*drawn] == ["answers", "searching", "testing"]
    assert not found.untested
    assert all(done == total > 0 for total, done in drawn.values())


def test_a_removed_cue_leaves_no_ghost_on_the_sheet(images: Tensor, labels: Labels) -> None:
    """The mean image has a third of a tag that all images of a class carry."""
    finding = audit_images(make_model(use=4), plant_tags(images, range(24)), labels, progress=False).findings[0]
    top, left = CORNER
    covered = finding.sheet.removed[:, top : top + 6, left : left + 6]
    assert finding.cue == "patch"
    assert np.ptp(covered, axis=(1, 2)).max() == 0


def test_scikit_learn_is_asked_for_before_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ParameterError, match=r"an audit needs scikit-learn.*pip install 'vizcnn\[embed\]'"):
        vizcnn.audit(make_model(), "no folder at all")


def test_three_images_are_too_few_and_said_so(images: Tensor) -> None:
    found = vizcnn.audit(make_model(use=4), images[[0, 30, 60]], progress=False)
    assert "No class has enough images to prove anything" in found.describe()


def test_an_error_leaves_no_trace(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> object:
        torch.rand(3)
        raise RuntimeError("here")

    monkeypatch.setattr("vizcnn.auditing.tasks.prove", fail)
    model, state = make_model(use=4), torch.get_rng_state()
    model.network.train()
    weights = model.weights_sha256()
    with pytest.raises(RuntimeError, match="here"):
        audit_images(model, images, progress=False)
    assert model.weights_sha256() == weights
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in model.network.modules())
    assert all(one.requires_grad and one.grad is None for one in model.network.parameters())


def test_ctrl_c_keeps_what_is_proven(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def prove_once(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return prove(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("vizcnn.auditing.tasks.prove", prove_once)
    tagged = list(plant_tags(images, TAGGED))
    with pytest.raises(Interrupted) as stopped:
        vizcnn.audit(make_model(use=4), tagged, progress=False)
    found = stopped.value.result
    assert found.partial
    assert shortcuts(found) == [("red", "patch")]
    assert "Stopped early" in found.describe()


def test_a_result_opens_as_it_was_saved(tagged_audit: vizcnn.Audit, tmp_path: Path) -> None:
    found = tagged_audit
    again = vizcnn.load_result(found.save(tmp_path / "audit.npz"))
    assert isinstance(again, vizcnn.Audit)
    assert again.summary() == found.summary()
    assert np.abs(again.findings[0].sheet.carriers - found.findings[0].sheet.carriers).max() <= 0.5 / 255 + 1e-6
    record = json.loads(found.save(tmp_path / "findings.json").read_text())
    first = record["findings"][0]
    assert (first["kind"], first["class"], first["box"]) == ("shortcut", "red", [2, 24, 8, 30])
    assert first["pasted"]["low"] < first["pasted"]["difference"] < first["pasted"]["high"]
    assert found.records()[0]["box_left"] == 24
    assert found.save(tmp_path / "sheets.pdf").stat().st_size > 10_000


def test_classes_of_another_network_give_way_to_predicted_ones(images: Tensor) -> None:
    strange = {f"tensor {i}": "horse" for i in range(len(images))}
    with pytest.warns(VizcnnWarning, match="tagged has no class, or several, named 'horse': the predicted"):
        found = vizcnn.audit(make_model(use=4), plant_tags(images, TAGGED), strange, progress=False)
    assert not found.labelled
