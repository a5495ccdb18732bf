"""Session: one call of the program. It runs a probe over the images, reports, and knows the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from vizcnn.errors import Interrupted, ParameterError, VizcnnError
from vizcnn.images import image_files
from vizcnn.model import Model
from vizcnn.results import Result, checked_format

OK, FAILED, SOME_FAILED, INTERRUPTED = 0, 1, 3, 130


class Session:
    """What a call printed, wrote and failed at. An error is one line on stderr; with `debug` it is a traceback."""

    def __init__(self, probe: str, out: Path | None, *, as_json: bool, quiet: bool, debug: bool) -> None:
        self.probe, self.out = probe, out
        self.as_json, self.quiet, self.debug = as_json, quiet, debug
        self.results: list[object] = []
        self.errors: list[str] = []

    def run(self, load: Callable[[], Model], images: Sequence[str] | None, compute: Callable[..., Result]) -> NoReturn:
        """Load the model, probe each image (or the network alone, without images), and leave with the exit code."""
        files: list[str | None] = [None] if images is None else [*self._files(images)]
        with self._trying(essential=True):
            places = self._places(files)
            model = load()
        for file, place in zip(files, places, strict=True):
            with self._trying():
                self._one(model, file, place, compute)
        self._leave()

    def _one(self, model: Model, file: str | None, place: Path, compute: Callable[..., Result]) -> None:
        try:
            self._keep(compute(model, file, progress=not self.quiet), place)
        except Interrupted as stopped:
            self._keep(stopped.result, place)
            raise

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
            self.errors.append(_one_line(error))
            click.echo(f"vizcnn: {self.errors[-1]}", err=True)
            if essential:
                self._leave()

    def _files(self, images: Sequence[str]) -> list[str]:
        found: list[str] = []
        for image in images:
            with self._trying():
                found += image_files(image)
        return found or self._leave()

    def _places(self, files: list[str | None]) -> list[Path]:
        """Where each result goes; whatever is wrong with that is known before anything is computed."""
        if self.out is not None and len(files) == 1 and not self.out.is_dir():
            _refuse_own_input(self.out, files[0])
            checked_format(self.out)
            return [self.out]
        if self.out is not None and self.out.suffix and not self.out.is_dir():
            raise ParameterError(f"{len(files)} images need a folder to write to, got the file name {self.out}")
        folder = self.out or Path()
        folder.mkdir(parents=True, exist_ok=True)
        places = [folder / f"{_stem(file)}{self.probe}.png" for file in files]
        if twice := {str(place) for place in places if places.count(place) > 1}:
            raise ParameterError(f"several images would be written to {min(twice)}. Rename them, or run them apart")
        return places

    def _keep(self, result: Result, place: Path) -> None:
        result.save(place)
        self.results.append({**result.manifest(), "file": str(place)})
        if not (self.quiet or self.as_json):
            click.echo(f"{result.describe()}\n  {place}")

    def _leave(self, code: int | None = None) -> NoReturn:
        """Print the JSON object if it was asked for, and end the program."""
        if self.as_json:
            click.echo(json.dumps({"results": self.results, "errors": self.errors}, indent=2))
        failed = SOME_FAILED if self.results else FAILED
        sys.exit(code if code is not None else failed if self.errors else OK)


def _stem(file: str | None) -> str:
    return f"{Path(file.removeprefix('sample:')).stem}-" if file else ""


def _refuse_own_input(out: Path, image: str | None) -> None:
    if image and out.exists() and Path(image).exists() and out.samefile(image):
        raise ParameterError(f"{out} is the image itself; writing there would destroy it. Choose another name with -o")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
    return text if isinstance(error, VizcnnError) else f"{type(error).__name__}: {text}{notes} (--debug shows where)"
