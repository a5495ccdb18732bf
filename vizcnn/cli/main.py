"""The command line: one verb per probe, made from the probe's declared options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from vizcnn.cli.commands import COMMANDS
from vizcnn.cli.options import DEVICE, LOADING, LOADING_NAMES, REPORTING, SHARING, STYLE
from vizcnn.errors import ParameterError, ProbeNotFound, did_you_mean
from vizcnn.probing import registry
from vizcnn.probing.call import CALL_NAMES, Call
from vizcnn.probing.probe import Option, Probe, list_options
from vizcnn.process import set_stdout_aside, spare_imports
from vizcnn.version import __version__

if TYPE_CHECKING:
    from vizcnn.models.model import Model
    from vizcnn.scanning import Index


INTERRUPTED = 130
_DEFAULT = "tiny"


class ProbeGroup(click.Group):
    """Commands are the installed probes. Listing them imports none; a broken plugin is one line in the list."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*registry.list_names(), *COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        return make_command(name) if name in registry.list_names() else COMMANDS.get(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Probes"):
            formatter.write_dl([(name, registry.read_summary(name)) for name in registry.list_names()])
        helps = {name: each.get_short_help_str(80) for name, each in COMMANDS.items()}
        with formatter.section("All about one image"):
            formatter.write_dl([("explain", helps.pop("explain"))])
        with formatter.section("Your network"):
            formatter.write_dl([("check", helps.pop("check"))])
        with formatter.section("Data sets"):
            formatter.write_dl([*helps.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click's own answer would be exit status 1
            ctx.exit(INTERRUPTED)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise click.UsageError(f"no probe named {args[0]!r}.{did_you_mean(args[0], known)} See: vizcnn --help")
        return super().resolve_command(ctx, args)


@click.group(cls=ProbeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vizcnn")
def main() -> None:
    """Show what a convolutional network has learned.

    \b
    vizcnn occlusion photo.jpg
    vizcnn occlusion photo.jpg -m resnet18 -t tabby -o cat.png
    """


def make_command(name: str) -> click.Command:
    """The command of one probe."""
    try:
        with set_stdout_aside(shown=True), spare_imports():  # what a plugin prints on import is no part of an answer
            probe = registry.get(name)
    except ProbeNotFound as error:
        raise click.ClickException(str(error)) from error
    declared = [_make_option(option) for option in list_options(probe)]
    return click.Command(
        name,
        params=[*_make_arguments(probe), *declared, *_list_shared(probe)],
        help=_write_help(probe),
        callback=_make_runner(name, probe),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _write_help(probe: type[Probe[Any]]) -> str:
    """What a probe's docstring says before its options, in which formulas and examples keep their lines."""
    said = (probe.__doc__ or "").split("\nOptions:")[0]
    return said.replace("\n\n    ", "\n\n\b\n    ")


def _make_arguments(probe: type[Probe[Any]]) -> list[click.Parameter]:
    """What stands without a dash: the images; for a probe of the network alone the network, and what is asked of it."""
    if probe.needs_images:
        return [click.Argument(["images"], nargs=-1, required=True, metavar="IMAGE...")]
    network = click.Argument(["network"], required=False, metavar="[MODEL]")
    return [network, *([click.Argument(["targets"], nargs=-1, metavar="[TARGET]...")] if probe.needs_target else [])]


def _make_option(option: Option) -> click.Option:
    flag = f"--{option.name.replace('_', '-')}"
    shown = {"help": option.describe(), "show_default": option.default is not None, "default": option.default}
    kinds = [kind for kind in _list_alternatives(option.type) if kind is not type(None)]
    if kinds == [bool]:
        return click.Option([f"{flag}/--no-{flag[2:]}", option.name], **shown)
    if len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return click.Option([flag, option.name], type=click.Choice(get_args(kinds[0])), **shown)
    plain = kinds[0] if len(kinds) == 1 and kinds[0] in (int, float, str) and not option.param.parse else str
    return click.Option([flag, option.name], type=plain, **shown)


def _list_alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _list_shared(probe: type[Probe[Any]]) -> list[click.Parameter]:
    target = click.Option(
        ["-t", "--target"],
        multiple=True,
        help="A class (name or number), p(CLASS), LAYER:CHANNEL, LAYER:FIRST-LAST, LAYER:CHANNEL@Y,X, energy(LAYER) "
        "or strongest(LAYER). "
        "May be repeated; default: "
        f"{'the predicted class' if probe.default_targets is Probe.default_targets else 'as above'}.",
    )
    dry = click.Option(["--dry-run"], is_flag=True, help="Compute nothing: say what it would cost, and in what time.")
    index = click.Option(
        ["--index"],
        type=click.Path(),
        help="Answer from the index of a scan: LAYER:CHANNEL... The network is needed only for what an index does not "
        "hold; -m names it.",
    )
    trust = click.Option(
        ["--trust"],
        is_flag=True,
        help="Say below each map how far it can be believed: 100 more runs of the network per image, and a map of "
        "another class.",
    )
    return [
        *([index] if probe.answer is not Probe.answer else []),
        *([dry] if probe.estimate_cost is not Probe.estimate_cost else []),
        *([target] if probe.needs_target else []),
        *([trust] if probe.makes_maps else []),
        click.Option(["-m", "--model"], help=_MODEL_HELP),
        click.Option(["-o", "--out"], type=click.Path(path_type=Path), help=_OUT_HELP),
        STYLE,
        DEVICE,
        *LOADING,
        click.Option(
            ["--seed"],
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            help="Makes everything random repeatable.",
        ),
        *(SHARING if probe.needs_images and not probe.streams else []),
        *REPORTING,
    ]


_MODEL_HELP = (
    "A bundled network (default: tiny; also lecture@FILE), a file that vizcnn.zoo.train_own has left, a name of "
    "torchvision (resnet18, resnet18@TAG, resnet18@FILE.pth, resnet18@random), timm:NAME, hf:NAME or hf:FOLDER, a name "
    "from vizcnn.toml or pyproject.toml, or package.module:factory or ./file.py:factory that returns a vizcnn.Model, "
    "or with --input-size an nn.Module."
)
_OUT_HELP = (
    "The file to write: .png .jpg .pdf .svg .html draw, .gif shows the making (with --frames) or states of a network "
    "(filters --compare), .npz .safetensors keep the numbers, .json the finding; without an ending, a folder. Default: "
    "IMAGE-PROBE.png here (.gif with --frames, .pdf with --style print). Of several images, those whose result of the "
    "same call is there already are skipped."
)


def _make_runner(name: str, kind: type[Probe[Any]]) -> Callable[..., None]:
    def run(**given: Any) -> None:
        from vizcnn.cli.images import Work
        from vizcnn.cli.session import Session
        from vizcnn.models.checkpoints import split_part

        call = Call(**{key: given.pop(key) for key in CALL_NAMES & given.keys()})
        spec, targets = _split_model_and_targets(kind, call)
        try:
            probe = kind(**given)
        except ParameterError as error:
            raise click.UsageError(str(error)) from error
        weights, _ = split_part(spec.rpartition("@")[2])
        session = Session(name, call, weights=weights, has_frames=probe.keeps_frames(), makes_film=probe.makes_film())
        said = {name: getattr(call, name) for name in LOADING_NAMES}
        load = session.tell_notes(partial(_load_model, spec, call.device, kind.needs_weights, said))
        if call.index is not None:
            wanted = [*(call.images or ()), *targets]  # with an index, what stands where images do is a target
            answer = partial(_answer, probe, load if call.model else None, wanted, call.seed)
            session.run(partial(_open_index, call.index), None, Work(answer))
        asked: dict[str, Any] = {"target": targets or None, "seed": call.seed}
        if kind.streams:
            session.run(load, None, Work(partial(_call_once, probe, call.images or (), **asked)))
        asked |= {"trust": call.trust} if kind.makes_maps else {}
        if call.dry_run:
            session.estimate(load, call.images, partial(probe.dry_run, **asked))
        work = Work(partial(probe, **asked), partial(probe.identify_call, **asked))
        session.run(load, call.images, work, workers=call.workers, dask=call.dask)

    return run


def _split_model_and_targets(probe: type[Probe[Any]], call: Call) -> tuple[str, list[str]]:
    """Which model, and what is asked of it. With -m, the first argument is a target already."""
    if not (call.model and call.network):
        return call.model or call.network or _DEFAULT, [*call.targets, *call.target]
    if not probe.needs_target:
        raise click.UsageError(f"two models were given: {call.network} and -m {call.model}. Leave one out")
    return call.model, [call.network, *call.targets, *call.target]


def _call_once(probe: Probe[Any], images: tuple[str, ...], model: Model, _file: None, **options: Any) -> Any:
    """One call for all images."""
    from vizcnn.cli.stdin import STDIN, read_stdin

    sources = [read_stdin() if image == STDIN else image for image in images]
    return probe(model, sources[0] if len(sources) == 1 else sources, **options)


def _open_index(folder: str) -> Any:
    from vizcnn.scanning import Index

    return Index.open(folder)


def _answer(
    probe: Probe[Any],
    load: Callable[[], Model] | None,
    targets: list[str],
    seed: int,
    index: Index,
    _file: None,
    *,
    progress: bool,
) -> Any:
    """What a probe answers from an index, with the network too where it was named."""
    if load is None:
        return probe.answer(index, targets)
    return probe.answer(index, targets, load(), seed=seed, progress=progress)


def _load_model(spec: str, device: str, weights: bool, said: Mapping[str, Any]) -> Model:
    """The network, with what the command line says of it beside its name."""
    from vizcnn.models.loading import load

    return load(spec, device=device, weights=weights, **said)
