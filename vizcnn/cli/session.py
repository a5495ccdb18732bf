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

from vizcnn.errors import Interrupted, OutputError, ParameterError, VizcnnError, VizcnnWarning, legible, one_line
from vizcnn.inputs.images import image_files
from vizcnn.models.model import Model
from vizcnn.probing.call import Call
from vizcnn.probing.probe import Price
from vizcnn.process import stdout_aside
from vizcnn.results import Result, checked_format

R = TypeVar("R")
OK, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130
_FILMS = {".gif", ".npz", ".safetensors"}  # what can keep the states on the way


class Session:
    """What a call printed, wrote and failed at. An error is one line on stderr; with `debug` it is a traceback."""

    def __init__(self, command: str, call: Call, *, weights: str = "", film: bool = False) -> None:
        """command: its name. weights: a file that is read as weights, if it is one. film: whether results hold how they
        were made."""
        self.command, self.out, self.weights, self.film = command, call.out, weights, film
        self.as_json, self.quiet, self.debug = call.json, call.quiet, call.debug
        self.results: list[object] = []
        self.errors: list[str] = []

    def run(self, load: Callable[[], Model], images: Sequence[str] | None, compute: Callable[..., Result]) -> NoReturn:
        """Load the model, probe each image (or the network alone, without images), and leave with the exit code."""
        with self._answering():
            files: list[str | None] = [None] if images is None else [*self._files(images)]
            with self._trying(essential=True):
                places = self._places(files)
                model = load()
            for file, place in zip(files, places, strict=True):
                result = None
                with self._trying():
                    result = self._one(model, file, place, compute)
                if result:
                    self._say(result, place)
            self._leave()

    def estimate(
        self, load: Callable[[], Model], images: Sequence[str], estimate: Callable[..., Price | None]
    ) -> NoReturn:
        """Say what each image would cost, and leave."""
        with self._answering():
            files = self._files(images)
            with self._trying(essential=True):
                model = load()
            for file in files:
                with self._trying(), _warnings_in_one_line():
                    price = estimate(model, file)
                    assert price is not None
                    self.results.append({"image": file, **asdict(price)})
                    self._print(f"{file}: {price.describe()}")
            self._leave()

    def finish(
        self,
        work: Callable[[], R],
        facts: Callable[[R], dict[str, object]],
        said: Callable[[R], str],
        problems: Callable[[R], list[str]],
    ) -> NoReturn:
        """Do one piece of work, say what came of it and what went wrong on the way, and leave with the exit code."""
        with self._answering():
            with self._trying(essential=True), _warnings_in_one_line():
                found = work()
                self.results.append(facts(found))
                self._print(said(found))
                for problem in problems(found):
                    self._complain(problem)
            self._leave()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Keep standard output for one JSON object, or for nothing, where that was asked for, whatever libraries print
        there; the object is printed last."""
        try:
            with stdout_aside(shown=not self.quiet) if self.as_json or self.quiet else nullcontext():
                yield
        except SystemExit:
            if self.as_json:
                click.echo(json.dumps({"results": self.results, "errors": self.errors}, indent=2))
            raise

    def _one(self, model: Model, file: str | None, place: Path, compute: Callable[..., Result]) -> Result:
        try:
            with _warnings_in_one_line():
                result = compute(model, file, progress=not self.quiet)
        except Interrupted as stopped:
            with self._trying():
                self._keep(stopped.result, place)
                self._say(stopped.result, place)
            raise
        self._keep(result, place)
        return result

    def _keep(self, result: Result, place: Path) -> None:
        with _warnings_in_one_line():
            result.save(place)
        self.results.append({**result.manifest(), "file": str(place)})

    def _say(self, result: Result, place: Path) -> None:
        self._print(f"{result.describe()}\n  {place}")

    def _print(self, text: str) -> None:
        if not (self.quiet or self.as_json):
            click.echo(legible(text))

    def _complain(self, problem: str) -> None:
        self.errors.append(problem)
        click.echo(f"vizcnn: {problem}", err=True)

    @contextmanager
    def _trying(self, *, essential: bool = False) -> Iterator[None]:
        """Report an error and go on, or leave when nothing can be done without this step."""
        try:
            yield
        except KeyboardInterrupt:
            self._leave(INTERRUPTED)
        except Exception as error:
            if self.debug:
                raise
            self._complain(_one_line(error))
            if essential:
                self._leave()

    def _files(self, images: Sequence[str]) -> list[str]:
        found: list[str] = []
        for image in images:
            with self._trying(), _warnings_in_one_line():
                found += image_files(image)
        return found or self._leave()

    def _places(self, files: list[str | None]) -> list[Path]:
        """Where each result goes; whatever is wrong with that is known before anything is computed."""
        out = self.out
        if out is not None and out.suffix and not isdir(out):
            if len(files) > 1:
                raise ParameterError(f"{len(files)} images need a folder to write to, got the file name {out}")
            places = [out]
        else:
            ending = ".gif" if self.film else ".png"
            places = [_made(out or Path()) / f"{_stem(file)}{self.command}{ending}" for file in files]
        if twice := {str(place) for place in places if places.count(place) > 1}:
            raise ParameterError(f"several images would be written to {min(twice)}. Rename them, or run them apart")
        for place in places:
            if checked_format(place) == ".gif" and not self.film:
                raise ParameterError(
                    f"{place} would be an animation and needs frames. Add --frames 24, where {self.command} has it"
                )
            if self.film and checked_format(place) not in _FILMS:
                raise ParameterError(
                    f"{place} would lose the frames. Name a .gif, .npz or .safetensors, or leave --frames out"
                )
            _refuse_own_input(place, [self.weights, *(file for file in files if file)])
        return places

    def _leave(self, code: int | None = None) -> NoReturn:
        """End the program."""
        failed = SOME_FAILED if self.results else FAILED
        sys.exit(code if code is not None else failed if self.errors else OK)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show vizcnn's own warnings as it shows its errors, each once: a whole data set may give the same."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VizcnnWarning)
        yield
    for text in dict.fromkeys(one_line(each.message) for each in caught if issubclass(each.category, VizcnnWarning)):
        click.echo(f"vizcnn: warning: {text}", err=True)
    for each in caught:
        if not issubclass(each.category, VizcnnWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _stem(file: str | None) -> str:
    return f"{Path(file.removeprefix('sample:')).stem}-" if file else ""


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot make the folder {folder}: {reason}. Choose another with -o") from error
    return folder


def _refuse_own_input(place: Path, inputs: Sequence[str]) -> None:
    for given in inputs:
        if place.exists() and isfile(given) and place.samefile(given):
            raise ParameterError(
                f"{place} is an input of this very call; writing there would destroy it. Choose another -o"
            )


def _one_line(error: Exception) -> str:
    text = one_line(error)
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    return text if isinstance(error, VizcnnError) else f"{type(error).__name__}: {text}{notes} (--debug shows where)"
