"""The command `explain`: why does the network say that of this image? Several methods, on one page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from vizcnn.cli.options import DEVICE, LOADING, LOADING_NAMES, REPORTING, SHARING, STYLE, with_options
from vizcnn.probing.call import Call


@with_options(STYLE, DEVICE, *LOADING, *SHARING, *REPORTING)
@click.command(short_help="Why does the network say that of this image? Several methods on one page, judged.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--quick", is_flag=True, help="Without rise, with 16 random halves and coarser maps: half the time.")
@click.option("-t", "--target", help="A class, by name or number, or p(CLASS). Default: what the network says.")
@click.option("-m", "--model", default="tiny", show_default=True, help="As for the probes.")
@click.option(
    "--index",
    type=click.Path(),
    help="The index of a scan with the layer whose units are shown: by their best crops. Default: by pictures made for "
    "them.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The file to write: .html is the whole page, .png .jpg .pdf .svg a picture for one look, .json for machines, "
    ".npz .safetensors keep the numbers; without an ending, a folder. Default: IMAGE-explain.png here.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Makes it repeatable.")
def explain(
    images: tuple[str, ...], model: str, target: str | None, quick: bool, index: str | None, seed: int, **given: Any
) -> None:
    """Why does the network say that of this image? Four methods side by side, each with how far it can be believed, and
    where the supported ones agree; the units that matter most; a few parts whose covering changes the answer, and a few
    that alone keep it, as few as a search found; and all of it in a few sentences.

    For classifiers of two or more classes. A black box shows occlusion and rise. What it will cost is said after
    its first runs.

    \b
    vizcnn explain photo.jpg
    vizcnn explain photo.jpg -m resnet18 --quick -o page.html
    vizcnn explain photos/ -t tabby -o pages/
    """
    from vizcnn.cli.images import Work
    from vizcnn.cli.session import Session
    from vizcnn.models.checkpoints import split_part

    said = {name: given.pop(name) for name in LOADING_NAMES}
    call = Call(**given)
    weights, _ = split_part(model.rpartition("@")[2])
    session = Session("explain", call, weights=weights)
    load = session.tell_notes(partial(_load, model, call.device, said))
    options, asked = {"quick": quick, "crops": index}, {"target": target, "seed": seed}
    work = Work(partial(_explain, options, asked), partial(_identify, options, asked))
    session.run(load, images, work, workers=call.workers, dask=call.dask)


def _load(spec: str, device: str, said: dict[str, Any]) -> Any:
    from vizcnn.models.loading import load

    return load(spec, device=device, **said)


def _explain(options: dict[str, Any], asked: dict[str, Any], model: Any, image: Any, *, progress: bool) -> Any:
    from vizcnn.explaining.explain import Explain

    return Explain(**options)(model, image, **asked, progress=progress, strict=True)


def _identify(options: dict[str, Any], asked: dict[str, Any], model: Any, image: Any) -> Any:
    from vizcnn.explaining.explain import Explain

    return Explain(**options).identify_call(model, image, **asked)
