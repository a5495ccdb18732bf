"""Facts: what a few runs of a network on one image show, and what a probe may need of that.

Each function `require_...` is one need. It passes where the facts meet it, and raises the error that a probe with this
need raises on the same network, with the reason and the remedy. A probe states its needs in `Probe.rehearse`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizcnn.errors import DegenerateResult, NetworkError, TargetError, UnsuitableNetwork, VizcnnError
from vizcnn.inputs.photo import Photo
from vizcnn.models.backward import ReluWatch
from vizcnn.models.clean import CleanRuns, run_clean
from vizcnn.models.determinism import score_each, score_images
from vizcnn.models.failing import is_out_of_memory, to_backward_error
from vizcnn.models.layers.axes import find_axes, find_spatial_layers, to_network_form, to_usual_form
from vizcnn.models.layers.capture import Hook, hook_layer
from vizcnn.models.model import Model
from vizcnn.models.scoring import differ
from vizcnn.models.targets import Target, target
from vizcnn.probing.attribution import Map, check_map, require_gradient

_NO_GRADIENT = torch.empty(0)
_ROUGH = 2  # bytes of a number: so few may round away what a gradient says


@dataclass(frozen=True)
class Slopes:
    """What one run forward and one backward show of a target. None where nothing depends on it.

    score: of the target, (1,), with its graph gone. pixels: d score / d pixels, (1, C, H, W). layer: the Model's
    default layer, or the last that gives maps. activations, gradients: its own A, and d score / d A, (1, C, h, w) both.
    relus: what ran. is_differentiable: whether the score has a gradient by anything. attached: the layers whose maps
    have one by the pixels. failure: of the network's own run backward to the pixels, if it has failed."""

    score: Tensor
    pixels: Tensor | None
    layer: str | None
    activations: Tensor | None
    gradients: Tensor | None
    relus: ReluWatch
    is_differentiable: bool
    attached: frozenset[str]
    failure: NetworkError | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a network after a few runs on one image. The network is borrowed meanwhile.

    image: (1, C, H, W) in [0, 1]; photo: what it was made of, as a result keeps it.
    failure: why the network has no output for the image. refusal: why no score of it can be trusted.
    unclear: why no class is predicted. target: what was asked instead, or the predicted class; None where neither is
        known. given: whether the probe is called with that target, as the person would do after reading `unclear`.
    clean: the answer to the image for the target; None after a failure or a refusal.
    slopes: None where nothing could be asked. error: what the run that was to give them ended in.
    """

    model: Model
    image: Tensor
    photo: Photo
    failure: VizcnnError | None = None
    refusal: VizcnnError | None = None
    unclear: TargetError | None = None
    target: Target | None = None
    given: bool = False
    clean: CleanRuns | None = None
    slopes: Slopes | None = None
    error: VizcnnError | None = field(default=None, repr=False)

    @property
    def output(self) -> Tensor | None:
        """The network's output (1, ...); None where it is not one tensor."""
        return None if self.clean is None else self.clean.output

    @cached_property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Height and width of every layer's maps of more than one position, in the order of running."""
        return find_spatial_layers(self.model, self.image)

    def describe(self, target: Target) -> str:
        """The target and the image, for messages."""
        return f"the target {target} of {self.photo.name}"


def observe(model: Model, image: Tensor, photo: Photo) -> Facts:
    """Ask a borrowed network about one image (1, C, H, W) in [0, 1]: forward alone and beside another, and backward."""
    facts: dict[str, Any] = {"model": model, "image": image, "photo": photo}
    try:
        output = run_clean(model, image, ()).output
    except VizcnnError as error:
        return Facts(**facts, failure=error, refusal=error)
    try:
        facts["clean"] = run_clean(model, image, None)
        facts["target"] = facts["clean"].targets[0][0]
    except TargetError as unclear:
        facts["unclear"] = unclear
        facts |= _ask_instead(model, image, output)
    except VizcnnError as refusal:
        return Facts(**facts, refusal=refusal)
    if facts.get("target") is None:
        return Facts(**facts)
    try:
        return Facts(**facts, slopes=_run_backward(model, image, facts["target"]))
    except VizcnnError as error:
        return Facts(**facts, error=error)


def _ask_instead(model: Model, image: Tensor, output: Tensor | None) -> dict[str, Any]:
    """Another target, where no class is predicted, with the answer for it or the reason why there is none."""
    for chosen in _list_targets(model, image, output):
        try:
            clean = run_clean(model, image, (target(chosen).resolved(model),))
        except TargetError:  # no target for this network, such as a class of whole numbers
            continue
        except VizcnnError as refusal:
            return {"refusal": refusal}
        return {"clean": clean, "target": clean.targets[0][0]}
    return {}


def _list_targets(model: Model, image: Tensor, output: Tensor | None) -> Iterator[str]:
    """What to ask of a network that predicts no class: its one number, the class of most pixels, or else a layer."""
    if output is not None and output.dim() == 2 and output.shape[1]:
        yield "0"
    if output is not None and output.dim() == 4 and output.shape[1]:
        yield str(int(output[0].argmax(0).flatten().mode().values))
    if layers := [*find_spatial_layers(model, image)]:
        yield f"energy({layers[-1]})"


def _run_backward(model: Model, image: Tensor, asked: Target) -> Slopes:
    """One run forward, with everything watched, and one backward."""
    layers = [*find_spatial_layers(model, image)]
    layer, relus = model.default_layer or (layers[-1] if layers else None), ReluWatch()
    attached = set[str]()
    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as hooks:
        pixels, modules = image.clone().requires_grad_(), model.layers()
        for name in layers:
            hooks.enter_context(hook_layer(modules[name], _note_gradient(name, attached)))
        with _keep_output(model, layer, pixels) if layer else nullcontext(dict[str, Tensor]()) as kept, relus:
            scores = score_each(model, pixels, [asked])  # (1,)
        seen = kept.get("output", _NO_GRADIENT)
        by_pixels, by_layer, failure = _differentiate(scores, pixels, seen)
    return Slopes(
        scores.detach(),
        by_pixels,
        layer,
        seen.detach() if layer and "output" in kept else None,
        by_layer,
        relus,
        scores.requires_grad,
        frozenset(attached),
        failure,
    )


def _differentiate(
    scores: Tensor, pixels: Tensor, seen: Tensor
) -> tuple[Tensor | None, Tensor | None, NetworkError | None]:
    """The gradients of the scores by the pixels and by what a layer has given, None where there is none; and why a part
    of the network without a backward pass stops the former, which may lie before that layer."""
    if not scores.requires_grad:
        return None, None, None
    wanted = [pixels, *([seen] if seen.requires_grad else [])]
    try:
        found = torch.autograd.grad(scores.sum(), wanted, allow_unused=True, retain_graph=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        failure = to_backward_error(error)
    else:
        return found[0], found[1] if len(wanted) == 2 else None, None
    try:
        (by_layer,) = torch.autograd.grad(scores.sum(), wanted[1:], allow_unused=True)
    except Exception:  # there is no layer, or the failing part lies behind it
        by_layer = None
    return None, by_layer, failure


def _note_gradient(name: str, attached: set[str]) -> Hook:
    def note(_module: Any, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            attached.add(name)

    return note


@contextmanager
def _keep_output(model: Model, layer: str, images: Tensor) -> Iterator[dict[str, Tensor]]:
    """While the context is open, `output` is the layer's, in its usual form, and what follows can be differentiated by
    it. The network goes on with a copy, so that nothing behind the layer can change it."""
    axes, kept = find_axes(model, images, [layer]).get(layer), dict[str, Tensor]()

    def keep(_module: Any, _inputs: Any, output: Any) -> Tensor:
        usual = to_usual_form(output, axes)
        kept["output"] = usual if usual.requires_grad else usual.detach().requires_grad_()
        return to_network_form(kept["output"], output, axes).clone()

    with hook_layer(model.layer(layer), keep):
        yield kept


def require_output(facts: Facts) -> None:
    """The network has an output for the image, whatever it is."""
    if facts.failure:
        raise facts.failure


def require_steadiness(facts: Facts) -> None:
    """An image gets the same answer in every run, alone and beside others."""
    require_output(facts)
    refuse_unsteady(facts)


def refuse_unsteady(facts: Facts) -> None:
    """Raise UnsuitableNetwork for an answer that is random, or depends on the other images of a run."""
    if isinstance(facts.refusal, UnsuitableNetwork):
        raise facts.refusal


def require_answer(facts: Facts) -> Target:
    """The network has a class to explain, or the person names a target; its score can be trusted. Returns it."""
    require_output(facts)
    if facts.refusal:
        raise facts.refusal
    if facts.unclear and not facts.given:
        raise facts.unclear
    if facts.target is None:
        raise facts.unclear or TargetError("there is nothing to explain")
    return facts.target


def require_reaction(facts: Facts) -> Target:
    """The answer changes with the image: by its gradient, or else by runs on four other images. Returns its target."""
    asked = require_answer(facts)
    assert facts.clean is not None
    slopes = facts.slopes.pixels if facts.slopes else None
    if slopes is not None and slopes.isfinite().all() and slopes.any() and slopes.dtype.itemsize > _ROUGH:
        return asked
    noise = torch.rand(facts.image.shape, generator=torch.Generator().manual_seed(0)).to(facts.image)
    others = (torch.full_like(facts.image, 0.5), 1 - facts.image, facts.image.flip(-1), noise)
    with torch.no_grad():
        scores = np.concatenate([score_images(facts.model, each, [asked]).double().cpu().numpy() for each in others])
    largest = 0.0 if facts.output is None or not facts.output.numel() else float(facts.output.abs().max())
    if not differ(scores, facts.clean.scores[0], largest, facts.image.dtype).all():
        raise DegenerateResult(
            f"neither grey, nor the image's negative, its mirror image or noise changes {facts.describe(asked)} by "
            f"more than rounding (it stays {facts.clean.scores[0, 0]:g}): a dead unit, or one that does not see the "
            "input"
        )
    return asked


def require_slopes(facts: Facts) -> Slopes:
    """The answer to the image has a gradient with respect to the pixels that is finite and not zero. Returns what the
    runs forward and backward gave."""
    asked = require_answer(facts)
    slopes = require_backward(facts)
    if slopes.pixels is None:
        require_gradient(slopes.score, [asked], "the pixels")
    assert slopes.pixels is not None
    refuse_empty(facts, slopes.pixels.abs().amax(1))
    return slopes


def require_run(facts: Facts) -> Slopes:
    """The network runs with gradients on. Returns what that run and the one backward gave."""
    if facts.error:
        raise facts.error
    if facts.slopes is None:
        raise facts.unclear or TargetError("there is nothing to explain")
    return facts.slopes


def require_backward(facts: Facts) -> Slopes:
    """The same, of a network whose run backward reaches the pixels or ends before them, but does not fail."""
    slopes = require_run(facts)
    if slopes.failure:
        raise slopes.failure
    return slopes


def refuse_empty(facts: Facts, maps: Tensor) -> None:
    """Raise NonFiniteResult or DegenerateResult where a map (1, H, W) of the answer is none."""
    found = check_map(
        Map(maps[0].detach().float().cpu(), None, ""), f"the map of {facts.target} for {facts.photo.name}", maps.dtype
    )
    if isinstance(found, VizcnnError):
        raise found
