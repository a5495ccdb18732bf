"""Session: one call of the program. It runs a probe over the images, reports, and knows the exit code."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from os.path import isdir
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from vizcnn.cli.images import Outcome, Task, Work
from vizcnn.cli.saving import open_pool
from vizcnn.cli.stdin import STDIN, StandardInput, read_stdin
from vizcnn.errors import OutputError, ParameterError, VizcnnError, escape_invisible, to_one_line
from vizcnn.inputs.images import image_files
from vizcnn.inputs.records import provenance_in
from vizcnn.models.cost import Cost
from vizcnn.models.model import Model
from vizcnn.probing.call import Call
from vizcnn.process import collect_warnings, set_stdout_aside
from vizcnn.results import check_format
from vizcnn.results.style import USUAL, find_style

R = TypeVar("R")
OK, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130
_ENDS = {".png": b"IEND\xaeB`\x82", ".gif": b";", ".pdf": b"%%EOF\n"}  # of the pictures that several images get
_LONGEST_END = 8  # bytes
_WITH_FRAMES = {".gif", ".npz", ".safetensors"}  # what can keep the states on the way


class Session:
    """What a call printed, wrote and failed at. An error is one line on stderr; with `debug` it is a traceback."""

    def __init__(
        self, command: str, call: Call, *, weights: str = "", has_frames: bool = False, makes_film: bool = False
    ) -> None:
        """command: its name. weights: a file that is read as weights, if it is one. has_frames: whether results hold
        how they were made. makes_film: whether they can be an animation besides a picture."""
        self.command, self.out, self.weights, self.has_frames = command, call.out, weights, has_frames
        self.can_move = has_frames or makes_film
        self.style = None if call.style in (None, USUAL.name) else call.style
        self.as_json, self.quiet, self.debug = call.json, call.quiet, call.debug
        self.results: list[object] = []
        self.errors: list[str] = []
        self.stdin: StandardInput | None = None
        self.there: list[str] = []  # files that hold the result of the same call, from before
        self.warned: set[str] = set()

    def run(
        self,
        load: Callable[[], Model],
        images: Sequence[str] | None,
        work: Work,
        *,
        workers: int | None = None,
        dask: str | None = None,
    ) -> NoReturn:
        """Load the model, probe each image (or the network alone, without images), and leave with the exit code.

        workers, dask: who shares the images, see `vizcnn.cli.sharing`."""
        with self._keep_stdout_clear(), ExitStack() as open_things:
            files = self._expand(images)
            with self._report_errors(essential=True):
                tasks = self._make_tasks(files)
                if workers is None and dask is None:
                    pool = open_things.enter_context(open_pool(len(tasks)))
                    model = load()
                    run = partial(work.run, pool=pool, progress=not self.quiet)
                else:
                    from vizcnn.cli.sharing import open_workers, run_on_cluster

                    model = load()
                    run = partial(run_on_cluster, open_things.enter_context(open_workers(dask, workers)), work)
            with self._report_errors():
                run(model, tasks, self._report)
            self._leave()

    def estimate(
        self, load: Callable[[], Model], images: Sequence[str] | None, estimate: Callable[..., Cost | None]
    ) -> NoReturn:
        """Say what each image (or the network alone, without images) would cost, and leave."""
        with self._keep_stdout_clear():
            files = self._expand(images)
            with self._report_errors(essential=True):
                model = load()
            for file in files:
                with self._report_errors(), self._show_warnings():
                    cost = estimate(model, self._open(file))
                    assert cost is not None
                    self.results.append({"image": file, **asdict(cost)})
                    self._print(f"{file}: {cost.describe()}" if file else cost.describe())
            self._leave()

    def finish(
        self,
        work: Callable[[], R],
        collect: Callable[[R], dict[str, object]],
        describe: Callable[[R], str],
        list_problems: Callable[[R], list[str]],
    ) -> NoReturn:
        """Do one piece of work, say what came of it and what went wrong on the way, and leave with the exit code."""
        with self._keep_stdout_clear():
            with self._report_errors(essential=True), self._show_warnings():
                found = work()
                self.results.append(collect(found))
                self._print(describe(found))
                for problem in list_problems(found):
                    self._complain(problem)
            self._leave()

    def tell_notes(self, load: Callable[[], Model]) -> Callable[[], Model]:
        """The same function, which also says what it inferred, took off and ignored when it loaded a model."""

        def load_and_tell() -> Model:
            model = load()
            for note in model.notes if not self.quiet else ():
                click.echo(f"vizcnn: {to_one_line(note)}", err=True)
            return model

        return load_and_tell

    @contextmanager
    def _keep_stdout_clear(self) -> Iterator[None]:
        """Keep standard output for one JSON object, or for nothing, where that was asked for, whatever libraries print
        there; the object is printed last."""
        try:
            with set_stdout_aside(shown=not self.quiet) if self.as_json or self.quiet else nullcontext():
                yield
        except SystemExit:
            if self.as_json:
                there = {"there": self.there} if self.there else {}
                click.echo(json.dumps({"results": self.results, **there, "errors": self.errors}, indent=2))
            raise

    def _report(self, outcome: Outcome) -> None:
        """Say what came of an image, and count it."""
        self._warn(outcome.warnings)
        if outcome.error is not None:
            if self.debug:
                raise outcome.error
            self._complain(_format_error(outcome.error))
        elif outcome.saved is None:
            self.there.append(str(outcome.task.output))
            self._print(f"{outcome.task.output} is there already")
        else:
            self.results.append({**outcome.saved.manifest, "file": str(outcome.task.output)})
            self._print(f"{outcome.saved.words}\n  {outcome.task.output}")

    @contextmanager
    def _show_warnings(self) -> Iterator[None]:
        """Show vizcnn's own warnings when the context closes."""
        with collect_warnings() as texts:
            yield
        self._warn(texts)

    def _warn(self, texts: Sequence[str]) -> None:
        """Show warnings as errors are shown, each once: all images of a folder may give the same."""
        for text in texts:
            if text not in self.warned:
                self.warned.add(text)
                click.echo(f"vizcnn: warning: {text}", err=True)

    def _print(self, text: str) -> None:
        if not (self.quiet or self.as_json):
            click.echo(escape_invisible(text))

    def _complain(self, problem: str) -> None:
        self.errors.append(problem)
        click.echo(f"vizcnn: {problem}", err=True)

    @contextmanager
    def _report_errors(self, *, essential: bool = False) -> Iterator[None]:
        """Report an error and go on, or leave when nothing can be done without this step."""
        try:
            yield
        except KeyboardInterrupt:
            self._leave(INTERRUPTED)
        except BrokenPipeError:  # nobody reads what is printed any more: click ends without a word
            raise
        except Exception as error:
            if self.debug:
                raise
            self._complain(_format_error(error))
            if essential:
                self._leave()

    def _expand(self, images: Sequence[str] | None) -> list[str | None]:
        """The image files that are asked for; None alone where no images are."""
        if images is None:
            return [None]
        found: list[str | None] = []
        for image in images:
            with self._report_errors(), self._show_warnings():
                if image == STDIN and self.stdin is not None:
                    raise ParameterError("- is named twice, and standard input holds one image. Name it once")
                if image == STDIN:
                    self.stdin = read_stdin()
                found += [STDIN] if image == STDIN else image_files(image)
        return found or self._leave()

    def _open(self, file: str | None) -> str | StandardInput | None:
        """What stands for an image when it is read."""
        return self.stdin if file == STDIN else file

    def _make_tasks(self, files: list[str | None]) -> list[Task]:
        """What is to be done. Of a single image the result is made again, whatever is there."""
        outputs = self._choose_outputs(files)
        found = [_find_record(output) if len(files) > 1 else None for output in outputs]
        return [
            Task(self._open(file), output, old, self.style)
            for file, output, old in zip(files, outputs, found, strict=True)
        ]

    def _choose_outputs(self, files: list[str | None]) -> list[Path]:
        """Where each result goes; whatever is wrong with that is known before anything is computed."""
        out = self.out
        if out is not None and out.suffix and not isdir(out):
            if len(files) > 1:
                raise ParameterError(f"{len(files)} images need a folder to write to, got the file name {out}")
            outputs = [out]
        else:
            ending = ".gif" if self.has_frames else find_style(self.style or USUAL.name).ending
            folder = _make_folder(out or Path())
            outputs = [folder / f"{start}{self.command}{ending}" for start in _start_names(files)]
        if twice := [str(output) for output, count in Counter(outputs).items() if count > 1]:
            raise ParameterError(f"several images would be written to {min(twice)}. Rename them, or run them apart")
        inputs = {_find_on_disk(file) for file in (self.weights, *files) if file} - {None}
        for output in outputs:
            if check_format(output) == ".gif" and not self.can_move:
                raise ParameterError(
                    f"{output} would be an animation and needs frames. Add --frames 24, or --compare A,B for filters, "
                    f"where {self.command} has it"
                )
            if self.has_frames and check_format(output) not in _WITH_FRAMES:
                raise ParameterError(
                    f"{output} would lose the frames. Name a .gif, .npz or .safetensors, or leave --frames out"
                )
            if _find_on_disk(output) in inputs:
                raise ParameterError(
                    f"{output} is an input of this very call; writing there would destroy it. Choose another -o"
                )
        return outputs

    def _leave(self, code: int | None = None) -> NoReturn:
        """End the program."""
        failed = SOME_FAILED if self.results or self.there else FAILED
        sys.exit(code if code is not None else failed if self.errors else OK)


def _start_names(files: Sequence[str | None]) -> list[str]:
    """How the name of each result begins: as its image is named, with the ending only where that tells two apart."""
    named = [StandardInput.name if file == STDIN else (file or "").removeprefix("sample:") for file in files]
    names = [Path(name).name for name in named]
    stems = [Path(name).stem for name in named]
    same_names, same_stems = Counter(names), Counter(stems)
    pairs = zip(names, stems, strict=True)
    starts = [name if same_names[name] == 1 < same_stems[stem] else stem for name, stem in pairs]
    return [f"{start}-" if start else "" for start in starts]


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot make the folder {folder}: {reason}. Choose another with -o") from error
    return folder


def _find_record(picture: Path) -> dict[str, Any] | None:
    """The provenance in a whole picture. One that was cut off has it too, since it comes first, but not its end."""
    found = provenance_in(picture)
    if found is None:
        return None
    with open(picture, "rb") as file:
        file.seek(-_LONGEST_END, os.SEEK_END)
        return found if file.read().endswith(_ENDS.get(picture.suffix.lower(), b"")) else None


def _find_on_disk(file: str | Path) -> tuple[int, int] | None:
    """What is the same for all names of a file: the numbers of its disk and on it. None where there is no such file."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _format_error(error: Exception) -> str:
    text = to_one_line(error)
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    return text if isinstance(error, VizcnnError) else f"{type(error).__name__}: {text}{notes} (--debug shows where)"
