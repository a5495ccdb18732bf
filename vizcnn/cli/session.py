"""Session: one call of the program. It runs a probe over the images, reports, and knows the exit code."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from os.path import isdir, isfile
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from vizcnn.errors import (
    Interrupted,
    OutputError,
    ParameterError,
    VizcnnError,
    VizcnnWarning,
    escape_invisible,
    to_one_line,
)
from vizcnn.inputs.images import image_files
from vizcnn.models.cost import Cost
from vizcnn.models.model import Model
from vizcnn.probing.call import Call
from vizcnn.process import set_stdout_aside
from vizcnn.results import Result, check_format

R = TypeVar("R")
OK, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130
_WITH_FRAMES = {".gif", ".npz", ".safetensors"}  # what can keep the states on the way


class Session:
    """What a call printed, wrote and failed at. An error is one line on stderr; with `debug` it is a traceback."""

    def __init__(self, command: str, call: Call, *, weights: str = "", has_frames: bool = False) -> None:
        """command: its name. weights: a file that is read as weights, if it is one. has_frames: whether results hold
        how they were made."""
        self.command, self.out, self.weights, self.has_frames = command, call.out, weights, has_frames
        self.as_json, self.quiet, self.debug = call.json, call.quiet, call.debug
        self.results: list[object] = []
        self.errors: list[str] = []

    def run(self, load: Callable[[], Model], images: Sequence[str] | None, compute: Callable[..., Result]) -> NoReturn:
        """Load the model, probe each image (or the network alone, without images), and leave with the exit code."""
        with self._keep_stdout_clear():
            files = self._expand(images)
            with self._report_errors(essential=True):
                outputs = self._choose_outputs(files)
                model = load()
            for file, output in zip(files, outputs, strict=True):
                result = None
                with self._report_errors():
                    result = self._compute_and_keep(model, file, output, compute)
                if result:
                    self._say(result, output)
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
                with self._report_errors(), _show_warnings_in_one_line():
                    cost = estimate(model, file)
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
            with self._report_errors(essential=True), _show_warnings_in_one_line():
                found = work()
                self.results.append(collect(found))
                self._print(describe(found))
                for problem in list_problems(found):
                    self._complain(problem)
            self._leave()

    @contextmanager
    def _keep_stdout_clear(self) -> Iterator[None]:
        """Keep standard output for one JSON object, or for nothing, where that was asked for, whatever libraries print
        there; the object is printed last."""
        try:
            with set_stdout_aside(shown=not self.quiet) if self.as_json or self.quiet else nullcontext():
                yield
        except SystemExit:
            if self.as_json:
                click.echo(json.dumps({"results": self.results, "errors": self.errors}, indent=2))
            raise

    def _compute_and_keep(self, model: Model, file: str | None, output: Path, compute: Callable[..., Result]) -> Result:
        try:
            with _show_warnings_in_one_line():
                result = compute(model, file, progress=not self.quiet)
        except Interrupted as stopped:
            with self._report_errors():
                self._keep(stopped.result, output)
                self._say(stopped.result, output)
            raise
        self._keep(result, output)
        return result

    def _keep(self, result: Result, output: Path) -> None:
        with _show_warnings_in_one_line():
            result.save(output)
        self.results.append({**result.manifest(), "file": str(output)})

    def _say(self, result: Result, output: Path) -> None:
        self._print(f"{result.describe()}\n  {output}")

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
            with self._report_errors(), _show_warnings_in_one_line():
                found += image_files(image)
        return found or self._leave()

    def _choose_outputs(self, files: list[str | None]) -> list[Path]:
        """Where each result goes; whatever is wrong with that is known before anything is computed."""
        out = self.out
        if out is not None and out.suffix and not isdir(out):
            if len(files) > 1:
                raise ParameterError(f"{len(files)} images need a folder to write to, got the file name {out}")
            outputs = [out]
        else:
            ending = ".gif" if self.has_frames else ".png"
            outputs = [_make_folder(out or Path()) / f"{_start_of_name(file)}{self.command}{ending}" for file in files]
        if twice := {str(output) for output in outputs if outputs.count(output) > 1}:
            raise ParameterError(f"several images would be written to {min(twice)}. Rename them, or run them apart")
        for output in outputs:
            if check_format(output) == ".gif" and not self.has_frames:
                raise ParameterError(
                    f"{output} would be an animation and needs frames. Add --frames 24, where {self.command} has it"
                )
            if self.has_frames and check_format(output) not in _WITH_FRAMES:
                raise ParameterError(
                    f"{output} would lose the frames. Name a .gif, .npz or .safetensors, or leave --frames out"
                )
            _refuse_own_input(output, [self.weights, *(file for file in files if file)])
        return outputs

    def _leave(self, code: int | None = None) -> NoReturn:
        """End the program."""
        failed = SOME_FAILED if self.results else FAILED
        sys.exit(code if code is not None else failed if self.errors else OK)


@contextmanager
def _show_warnings_in_one_line() -> Iterator[None]:
    """Show vizcnn's own warnings as it shows its errors, each once: a whole data set may give the same."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VizcnnWarning)
        yield
    for text in dict.fromkeys(to_one_line(each.message) for each in caught if issubclass(each.category, VizcnnWarning)):
        click.echo(f"vizcnn: warning: {text}", err=True)
    for each in caught:
        if not issubclass(each.category, VizcnnWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _start_of_name(file: str | None) -> str:
    return f"{Path(file.removeprefix('sample:')).stem}-" if file else ""


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot make the folder {folder}: {reason}. Choose another with -o") from error
    return folder


def _refuse_own_input(output: Path, inputs: Sequence[str]) -> None:
    for given in inputs:
        if output.exists() and isfile(given) and output.samefile(given):
            raise ParameterError(
                f"{output} is an input of this very call; writing there would destroy it. Choose another -o"
            )


def _format_error(error: Exception) -> str:
    text = to_one_line(error)
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    return text if isinstance(error, VizcnnError) else f"{type(error).__name__}: {text}{notes} (--debug shows where)"
