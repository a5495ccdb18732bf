"""The command `atlas`: a website of a network, every unit one link, opened from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vizcnn.cli.options import DEVICE, LOADING, LOADING_NAMES, REPORTING, SHARING, parse_layers, with_options
from vizcnn.probing.call import Call

if TYPE_CHECKING:
    from vizcnn.models.model import Model
    from vizcnn.site.building import Atlas
    from vizcnn.site.cost import AtlasCost


def _parse_pictures(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...] | str | None:
    return text if text in (None, "all", "none") else parse_layers(ctx, param, text)


@with_options(DEVICE, *LOADING, *SHARING, *REPORTING)
@click.command(short_help="A website of the network: every unit one link, opened from a folder.")
@click.argument("images", nargs=-1, metavar="[IMAGES...]")
@click.option("-m", "--model", default="tiny", show_default=True, help="As for the probes.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default="site", show_default=True, help="The folder.")
@click.option(
    "--index", type=click.Path(), help="A scan to use again, in place of IMAGES: SITE.work/index of an atlas."
)
@click.option("--labels", type=click.Path(path_type=Path), help="A file of lines NAME,CLASS. Default: the sub-folders.")
@click.option("--layers", callback=parse_layers, help="Names or patterns of the layers to show. Default: all.")
@click.option(
    "--pictures",
    callback=_parse_pictures,
    metavar="none|LAYERS|all",
    help="Whose units get an optimised picture. Default: all of a network of at most 2,000 units, else none; the best "
    "crops stand in.",
)
@click.option(
    "--effects",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds for measuring what happens without a unit.",
)
@click.option("--by-hand", callback=parse_layers, help="Layers to compute number by number. Default: the first three.")
@click.option(
    "--pages",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many images get a page of their own, with maps; the dearest part for a large network.",
)
@click.option(
    "--no-dataset-images", is_flag=True, help="Leave out every pixel, map, activation and file name of the images."
)
@click.option(
    "--compare",
    metavar="OTHER",
    help="Another network, as for -m, such as an earlier checkpoint of this one. It is scanned over the same images "
    "and stands beside this one on the page of each unit; what changed most comes first.",
)
@click.option("--title", help="What the site is called. Default: the model's name.")
@click.option("--estimate", is_flag=True, help="Say how large it would be and how long it would take; write nothing.")
@click.option(
    "--recipe",
    default="robust",
    show_default=True,
    help="How the pictures are made, a recipe of maximize: quick takes about a quarter of the time.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the pictures.")
def atlas(
    images: Sequence[str],
    model: str,
    out: Path,
    device: str,
    json: bool,
    quiet: bool,
    debug: bool,
    no_dataset_images: bool,
    estimate: bool,
    compare: str | None,
    **options: Any,
) -> None:
    """Write a website of the network: its layers, every unit with the images that excite it most, a picture made for
    it, its classes, what happens without it and what drives it; every class; some images; a convolution by hand.

    IMAGES is a folder with any sub-folders (classes), an archive, or image files. The site opens from its folder,
    without a server. Stopped by whatever, the same command goes on; the scan and the pictures are kept in SITE.work.

    \b
    vizcnn atlas photos/ -m resnet18 --estimate
    vizcnn atlas photos/ -m resnet18 -o site
    vizcnn atlas photos/ -m resnet18 --pictures layer4.1.conv2 --effects 600
    vizcnn atlas -m resnet18 --index site.work/index -o another --no-dataset-images
    vizcnn atlas digits/ -m lecture --compare lecture@runs/lecture-00067.safetensors
    """
    from vizcnn.cli.session import GOES_ON, Session

    session = Session("atlas", Call(out=out, json=json, quiet=quiet, debug=debug))

    said = {name: options.pop(name) for name in LOADING_NAMES}
    sharing = options.pop("dask"), options.pop("workers")
    source: Any = images[0] if len(images) == 1 else list(images) or None
    options["dataset_images"] = not no_dataset_images

    def open_network(spec: str) -> Model:
        from vizcnn.models.loading import load

        return session.tell_notes(partial(load, spec, device=device, **said))()

    def open_other() -> Model | None:
        return None if compare is None else open_network(compare)

    def build() -> Atlas:
        from vizcnn.cli.sharing import open_workers
        from vizcnn.site.building import atlas as make

        network, other = open_network(model), open_other()
        with open_workers(*sharing) as client:
            return make(network, source, out, compare=other, client=client, progress=not quiet, **options)

    def weigh() -> AtlasCost:
        from vizcnn.site.building import estimate as weigh_atlas

        return weigh_atlas(open_network(model), source, out, compare=open_other(), **options)

    if estimate:
        session.finish(weigh, asdict, lambda cost: cost.describe(), lambda _cost: [])
    session.finish(build, _collect, lambda made: made.describe(), lambda _made: [], after_stop=GOES_ON)


def _collect(made: Atlas) -> dict[str, object]:
    return {
        "page": str(made.page),
        "work": str(made.work),
        "units": made.units,
        "images": made.images,
        "bytes": made.size,
        "seconds": made.seconds,
        "unreadable": [list(pair) for pair in made.unreadable],
        **({"compared": made.compared} if made.compared else {}),
    }
