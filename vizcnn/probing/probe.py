"""What a probe is: a frozen object of options, each declared once; calling it computes a result."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest
from inspect import cleandoc, signature
from os import PathLike
from os.path import isfile
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

from vizcnn.errors import Interrupted, ParameterError, VizcnnWarning
from vizcnn.probing.call import CALL_NAMES, HELP
from vizcnn.probing.entries import find_plugin
from vizcnn.probing.options import fits, name_type, write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vizcnn.models.cost import Cost
    from vizcnn.models.model import Model
    from vizcnn.models.targets import Target
    from vizcnn.probing.facts import Facts
    from vizcnn.probing.subject import Subject
    from vizcnn.results import Provenance, Result
    from vizcnn.scanning import Index


@dataclass(frozen=True)
class Param:
    """How one option is explained, limited and read from text. is_file: whether it names a file that is read."""

    help: str
    min: float | None = None
    max: float | None = None
    unit: str = ""
    parse: Callable[[str], Any] | None = None
    is_file: bool = False


def param(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    unit: str = "",
    parse: Callable[[str], Any] | None = None,
    is_file: bool = False,
) -> Any:
    """Declare an option of a probe. `parse` turns a text (from the command line) into the option's value, or raises
    ValueError saying what it should be; a text that it gives, it takes as it is. Limits apply to the number, or to each
    number of a tuple. `is_file` says that it names a file that the probe reads: results then keep the digest of its
    contents."""
    return dataclasses.field(default=default, metadata={"param": Param(help, min, max, unit, parse, is_file)})


@dataclass(frozen=True)
class Option:
    """An option as the command line, the docstring and the checks see it."""

    name: str
    type: Any
    default: Any
    param: Param

    def parse(self, value: Any) -> Any:
        """The value that a text stands for; other values as they are. Raises ValueError."""
        return self.param.parse(value) if isinstance(value, str) and self.param.parse else value

    def show(self, value: Any) -> str:
        """A value as a person gives it: an object that the option makes of its name, such as a recipe, by that name."""
        name = getattr(value, "name", None)
        with suppress(ValueError):
            if isinstance(name, str) and self.parse(name) == value:
                return repr(name)
        return repr(value)

    def describe(self) -> str:
        unit = f" [{self.param.unit}]" if self.param.unit else ""
        return f"{self.param.help}{unit}"


def list_options(probe: type[Probe[Any]]) -> list[Option]:
    """The options of a probe, in the order of their declaration."""
    hints = get_type_hints(probe)
    fields = dataclasses.fields(probe)  # type: ignore[arg-type]
    return [_check_option(probe, field, hints[field.name]) for field in fields]


def _check_option(probe: type[Probe[Any]], field: dataclasses.Field[Any], hint: Any) -> Option:
    where = f"option {field.name!r} of {probe.__name__}"
    if "param" not in field.metadata:
        raise TypeError(f"{where} must be declared with vizcnn.param(default, help)")
    if field.name in list_reserved():
        taken = ", ".join(sorted(list_reserved()))
        raise TypeError(f"{where} has a name that every probe uses already. Choose another than {taken}")
    for base in probe.__mro__[1:]:
        if field.name in vars(base) and field.name not in getattr(base, "__dataclass_fields__", ()):
            raise TypeError(f"{where} would hide what {base.__name__}.{field.name} is for. Choose another name")
    return Option(field.name, hint, field.default, field.metadata["param"])


@cache
def list_reserved() -> frozenset[str]:
    """The names that options cannot have: of what the command line reads for every probe, and of the parameters of a
    probe's calls. `list_options` also refuses the name of any other member that a probe inherits."""
    calls = (Probe.__call__, Probe.dry_run)
    return CALL_NAMES | {HELP} | {name for call in calls for name in signature(call).parameters} - {"self"}


R = TypeVar("R", bound="Result", covariant=True)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Probe(Generic[R]):
    """Base of all probes. A subclass declares options with `param()` and answers in `compute()`.

    A subclass becomes a frozen, keyword-only dataclass by itself; `Probe[Heatmap]` tells a type checker what a call
    returns. Options are checked when the object is made, before any network is loaded; `check()` may add conditions
    that concern several options.
    """

    paper: ClassVar[str] = ""
    """The source of the method, as a reader would look for it."""
    needs_images: ClassVar[bool] = True
    """False for probes of the network alone: they are called as `probe(model)`."""
    streams: ClassVar[bool] = False
    """True for probes of whole data sets: one call looks at all images and reads them batch by batch."""
    needs_weights: ClassVar[bool] = True
    """False for probes of the architecture alone: the command line then fetches no published weights."""
    needs_photos: ClassVar[bool] = False
    """True for probes that read the pixels of `subject.photos`, which otherwise may be smaller copies, for drawing."""
    needs_network: ClassVar[bool] = True
    """False for probes that only compare the network's answers to altered images, and so explain black boxes too."""
    needs_target: ClassVar[bool] = True
    """False for probes that explain no target: a target is refused, and the network may give any kind of output."""
    makes_maps: ClassVar[bool] = False
    """True for probes that return a Heatmap of each target: they take `trust=True`, and --trust on the command line."""

    def __init_subclass__(cls) -> None:
        own_doc = cleandoc(cls.__doc__ or "")  # newer Pythons take the indentation away by themselves
        if not own_doc:
            raise TypeError(f"{cls.__name__} needs a docstring: its first line is the probe's summary everywhere")
        dataclass(frozen=True, kw_only=True, repr=False)(cls)
        cls.__doc__ = _document(own_doc, list_options(cls))

    def __post_init__(self) -> None:
        for option in list_options(type(self)):
            self._read_option(option)
        self.check()

    def _read_option(self, option: Option) -> None:
        """Replace an option's text by the value it stands for, and check the value."""
        value = getattr(self, option.name)
        try:
            value = option.parse(value)
        except ValueError as error:
            raise ParameterError(f"{type(self).__name__}: {option.name} must be {error}, got {value!r}") from error
        object.__setattr__(self, option.name, value)
        if problem := _find_problem(option, value):
            raise ParameterError(f"{type(self).__name__}: {option.name} must be {problem}, got {value!r}")

    def __repr__(self) -> str:
        """The call that makes this probe: the options that are not at their defaults."""
        options = ((option, getattr(self, option.name)) for option in list_options(type(self)))
        given = [f"{o.name}={o.show(value)}" for o, value in options if value != o.parse(o.default)]
        return f"{type(self).__name__}({', '.join(given)})"

    @classmethod
    def name(cls) -> str:
        """The probe's name in provenance and file names: `FeatureMaps` is `feature-maps`."""
        return name_probe(cls.__name__)

    def write_options(self) -> dict[str, Any]:
        """The options in plain values, as provenance keeps them: `vizcnn.probe_from` makes the probe again from it."""
        return {option.name: write(getattr(self, option.name)) for option in list_options(type(self))}

    def check(self) -> None:
        """Raise ParameterError when options contradict each other."""

    def default_targets(self, model: Model) -> Sequence[Any] | None:  # noqa: ARG002 - for probes that override it
        """What is explained when no target is given; None for each image's predicted class."""
        return None

    def input_size(self, model: Model) -> tuple[int, int]:
        """Height and width, in px, of the images that a probe of the network alone will make."""
        return model.input.size

    def labels_from(self) -> str | None:
        """For probes of whole data sets: the file with the images' classes, see `vizcnn.inputs.dataset`."""
        return None

    def keeps_frames(self) -> bool:
        """Whether results keep states on the way, so that they can be saved as an animation (.gif). No picture shows
        these, so the command line writes none."""
        return False

    def makes_film(self) -> bool:
        """Whether results can be saved as an animation (.gif) that shows what a picture shows, one after the other."""
        return False

    def compute(self, subject: Subject) -> R:
        """Answer the probe's question about a prepared subject. The network is in eval mode, its parameters frozen.

        A probe that has something to show after Ctrl-C catches KeyboardInterrupt and returns a result with `partial`
        set; the call then raises Interrupted with it."""
        raise NotImplementedError

    def choose_explained(self, subject: Subject) -> Sequence[Sequence[Target]]:
        """What the maps of each image explain, where the method takes something else than the subject's targets, such
        as the strongest neuron of a channel. Its loss is what `trust` compares the maps with."""
        return subject.targets

    def measure_missing(
        self,
        subject: Subject,  # noqa: ARG002 - for probes that override it, like the other
        values: npt.NDArray[np.float32],  # noqa: ARG002
    ) -> npt.NDArray[np.float64] | None:
        """For a method whose maps promise a sum, what they lack of it as a share of it, (N, T); NaN where that is too
        small to be compared with. None for other methods. values: of the subject's maps, (N, T, H, W)."""
        return None

    def answer(
        self,
        index: Index,  # noqa: ARG002 - for probes that override it, like the others
        target: Any,  # noqa: ARG002
        model: Model | None = None,  # noqa: ARG002
        *,
        seed: int = 0,  # noqa: ARG002
        progress: bool = True,  # noqa: ARG002
    ) -> R:
        """The same from the index of a scan; the command line then has --index. model: the network that was scanned,
        where the person names it, for what the index does not hold."""
        raise ParameterError(f"{type(self).__name__} has no answer in the index of a scan. Call it with a model")

    def rehearse(self, facts: Facts) -> str:
        """What a call with these options would look at, such as a layer, in words; "" for nothing in particular.

        Raises what the call would raise, as far as a few runs of the network on one image tell: the errors of what the
        probe needs, see `vizcnn.probing.facts`. `vizcnn check` asks so which probes work on a network. A probe that
        does not say raises NotImplementedError, and nothing is known of it."""
        raise NotImplementedError

    def estimate_cost(self, subject: Subject) -> Cost | None:  # noqa: ARG002 - for probes that override it
        """What `compute` would cost; None for probes that take a moment. Probes that override this have --dry-run."""
        return None

    def dry_run(
        self, model: Model, images: Any = None, target: Any = None, *, seed: int = 0, trust: bool = False
    ) -> Cost | None:
        """What a call with the same arguments would cost, estimated in a moment."""
        with self._prepare(model, images, target, seed=seed, progress=False, trust=trust) as subject:
            if not trust:
                return self.estimate_cost(subject)
            from vizcnn.probing.trusting import estimate_with_trust

            return estimate_with_trust(self, subject)

    def identify_call(
        self, model: Model, images: Any = None, target: Any = None, *, seed: int = 0, trust: bool = False
    ) -> Provenance:
        """The provenance that the result of a call with the same arguments has, but for `details` and `paper`, found
        without computing the result."""
        with self._prepare(model, images, target, seed=seed, progress=False, trust=trust) as subject:
            return subject.provenance()

    def __call__(
        self,
        model: Model,
        images: Any = None,
        target: Any = None,
        *,
        seed: int = 0,
        progress: bool = True,
        strict: bool = False,
        trust: bool = False,
    ) -> R:
        """Probe a network.

        images: a path, `sample:NAME`, open file, Pillow image or array (resized and cropped as the model wants it), a
            tensor (C, H, W) or (N, C, H, W) in [0, 1] (taken as it is), or a list of these. Or any iterable of these of
            any length, or of tuples that begin with one: a generator, a torch Dataset or DataLoader, what
            `vizcnn.inputs.dataset` has opened. One photograph at a time is then held at its full size (all of them by
            dream and style, which start from their pixels); the result keeps copies of at most 1024 px of the first
            100, and of 256 px of those after them, with sizes and places in the photographs' own px. A probe that
            streams takes what `vizcnn.inputs.dataset` takes.
        target: what to explain: a class name or index, `layer:channel`, `layer:first-last` for several channels,
            `layer:channel@y,x`, `energy(layer)`, `strongest(layer)`, a pixel or region of a segmentation's class
            (`dog@y,x`), a detector's box (`dog#0`), a function of the output or of layers (`vizcnn.target`), or a list
            of these. Default: the class predicted for each image, that of most pixels, or the box of which the network
            is most sure, unless the probe says otherwise.
        seed: makes everything random in a probe repeatable. The caller's random state is left as it was.
        progress: show a progress bar on stderr for whatever takes longer than two seconds.
        strict: raise at the first image that cannot be read or explained. Otherwise it is left out, with a warning, and
            `result.refused` says why; where no image is left, its error is raised in any case.
        trust: also find out how far each map can be believed, see `vizcnn.results.Trust`: 100 more runs of the network
            for each image, and the map of another class. The maps are the same without it. Of probes that make maps.

        Raises Interrupted, a KeyboardInterrupt that holds the result, where Ctrl-C has cut the result short.
        """
        with self._prepare(model, images, target, seed=seed, progress=progress, strict=strict, trust=trust) as subject:
            if trust:
                from vizcnn.probing.trusting import compute_with_trust

                result = compute_with_trust(self, subject)
            else:
                result = self.compute(subject)
        if result.refused:
            warn_of_refused(result.refused)
        if result.partial:
            raise Interrupted(result)
        return result

    def _prepare(
        self,
        model: Model,
        images: Any,
        target: Any,
        *,
        seed: int,
        progress: bool,
        strict: bool = False,
        trust: bool = False,
    ) -> AbstractContextManager[Subject]:
        from vizcnn.models.threads import check_seed
        from vizcnn.probing.preparation import prepare
        from vizcnn.probing.subject import Question

        check_seed(type(self).__name__, seed)
        if trust and not self.makes_maps:
            raise ParameterError(
                f"trust is of maps that say which parts of an image a target needs, and {type(self).__name__} makes "
                "none. Leave it out, or take a probe such as Occlusion"
            )
        named = [option.name for option in list_options(type(self)) if option.param.is_file]
        files = tuple((name, digest) for name in named if (digest := _digest_file(getattr(self, name))))
        plugin = find_plugin(type(self).__module__)
        question = Question(self.name(), self.write_options(), self.paper, files, plugin, trust)
        return prepare(self, question, model, images, target, seed=seed, progress=progress, strict=strict)


def name_probe(class_name: str) -> str:
    """A probe's name by that of its class: `feature-maps` for `FeatureMaps`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", class_name).lower()


def _digest_file(path: Any) -> str:
    """Digest of a file's contents; "" where there is no such file, of which the probe then speaks."""
    if not (isinstance(path, str | PathLike) and isfile(path)):
        return ""
    with suppress(OSError), open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
    return ""


def warn_of_refused(refused: Sequence[tuple[str, str]]) -> None:
    """Say which images are left out, and why the first of them is."""
    name, reason = refused[0]
    images = "1 image was" if len(refused) == 1 else f"{len(refused)} images were"
    warnings.warn(f"{images} left out, see `result.refused`. {name}: {reason}", VizcnnWarning, stacklevel=3)


def _find_problem(option: Option, value: Any) -> str | None:
    """What the option's value should have been; None where the value is valid."""
    if not fits(option.type, value):
        return name_type(option.type)
    numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
    low, high, unit = option.param.min, option.param.max, option.param.unit and f" {option.param.unit}"
    if low is not None and any(not n >= low for n in numbers):  # `not >=` rather than `<`: NaN is refused too
        return f"at least {low:g}{unit}"
    if high is not None and any(not n <= high for n in numbers):
        return f"at most {high:g}{unit}"
    return None


def _document(doc: str, options: Sequence[Option]) -> str:
    """The docstring of a probe, with a list of its options at the end."""
    lines = [f"{o.name}: {name_type(o.type)} = {o.default!r}\n    {o.describe()}" for o in options]
    return f"{doc}\n\nOptions:\n" + "\n".join(lines) if lines else doc
