"""What a probe is: a frozen object of options, each declared once; calling it computes a result."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from vizcnn.errors import Interrupted, ParameterError
from vizcnn.probing.call import CALL_NAMES, HELP

if TYPE_CHECKING:
    from vizcnn.models.cost import Cost
    from vizcnn.models.model import Model
    from vizcnn.probing.subject import Subject
    from vizcnn.results import Result
    from vizcnn.scanning import Index


@dataclass(frozen=True)
class Param:
    """How one option is explained, limited and read from text."""

    help: str
    min: float | None = None
    max: float | None = None
    unit: str = ""
    parse: Callable[[str], Any] | None = None


def param(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    unit: str = "",
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """Declare an option of a probe. `parse` turns a text (from the command line) into the option's value, or raises
    ValueError saying what it should be; limits apply to the number, or to each number of a tuple."""
    return dataclasses.field(default=default, metadata={"param": Param(help, min, max, unit, parse)})


@dataclass(frozen=True)
class Option:
    """An option as the command line, the docstring and the checks see it."""

    name: str
    type: Any
    default: Any
    param: Param

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
    needs_target: ClassVar[bool] = True
    """False for probes that explain no target: a target is refused, and the network may give any kind of output."""

    def __init_subclass__(cls) -> None:
        own_doc = cls.__doc__
        if not own_doc:
            raise TypeError(f"{cls.__name__} needs a docstring: its first line is the probe's summary everywhere")
        dataclass(frozen=True, kw_only=True)(cls)
        cls.__doc__ = _document(own_doc, list_options(cls))

    def __post_init__(self) -> None:
        for option in list_options(type(self)):
            self._read_option(option)
        self.check()

    def _read_option(self, option: Option) -> None:
        """Replace an option's text by the value it stands for, and check the value."""
        value = getattr(self, option.name)
        if isinstance(value, str) and option.param.parse:
            try:
                value = option.param.parse(value)
            except ValueError as error:
                raise ParameterError(f"{type(self).__name__}: {option.name} must be {error}, got {value!r}") from error
            object.__setattr__(self, option.name, value)
        if problem := _find_problem(option, value):
            raise ParameterError(f"{type(self).__name__}: {option.name} must be {problem}, got {value!r}")

    @classmethod
    def name(cls) -> str:
        """The probe's name in provenance and file names: `FeatureMaps` is `feature-maps`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

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
        """Whether results keep states on the way, so that they can be saved as an animation (.gif)."""
        return False

    def compute(self, subject: Subject) -> R:
        """Answer the probe's question about a prepared subject. The network is in eval mode, its parameters frozen.

        A probe that has something to show after Ctrl-C catches KeyboardInterrupt and returns a result with `partial`
        set; the call then raises Interrupted with it."""
        raise NotImplementedError

    def answer(self, index: Index, target: Any) -> R:  # noqa: ARG002 - for probes that override it
        """The same from the index of a scan, without the network; the command line then has --index."""
        raise ParameterError(f"{type(self).__name__} has no answer in the index of a scan. Call it with a model")

    def estimate_cost(self, subject: Subject) -> Cost | None:  # noqa: ARG002 - for probes that override it
        """What `compute` would cost; None for probes that take a moment. Probes that override this have --dry-run."""
        return None

    def dry_run(self, model: Model, images: Any = None, target: Any = None, *, seed: int = 0) -> Cost | None:
        """What a call with the same arguments would cost, estimated in a moment."""
        with self._prepare(model, images, target, seed=seed, progress=False) as subject:
            return self.estimate_cost(subject)

    def __call__(
        self, model: Model, images: Any = None, target: Any = None, *, seed: int = 0, progress: bool = True
    ) -> R:
        """Probe a network.

        images: a path, `sample:NAME`, Pillow image or array (resized and cropped as the model wants it), a tensor
            (C, H, W) or (N, C, H, W) in [0, 1] (taken as it is), or a list of these. A probe that streams also takes
            an archive, a torch Dataset, or a folder with sub-folders, see `vizcnn.inputs.dataset`.
        target: what to explain: a class name or index, `layer:channel`, `layer:first-last` for several channels,
            `layer:channel@y,x`, `energy(layer)`, a function of the output or of layers (`vizcnn.target`), or a list of
            these. Default: the class predicted for each image, unless the probe says otherwise.
        seed: makes everything random in a probe repeatable. The caller's random state is left as it was.
        progress: show a progress bar on stderr for whatever takes longer than two seconds.

        Raises Interrupted, a KeyboardInterrupt that holds the result, where Ctrl-C has cut the result short.
        """
        with self._prepare(model, images, target, seed=seed, progress=progress) as subject:
            result = self.compute(subject)
        if result.partial:
            raise Interrupted(result)
        return result

    def _prepare(
        self, model: Model, images: Any, target: Any, *, seed: int, progress: bool
    ) -> AbstractContextManager[Subject]:
        from vizcnn.probing.preparation import prepare
        from vizcnn.probing.subject import Question

        question = Question(self.name(), dataclasses.asdict(self), self.paper)  # type: ignore[call-overload]
        return prepare(self, question, model, images, target, seed=seed, progress=progress)


def _find_problem(option: Option, value: Any) -> str | None:
    """What the option's value should have been; None where the value is valid."""
    if not _fits(option.type, value):
        return _name_type(option.type)
    numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
    low, high, unit = option.param.min, option.param.max, option.param.unit and f" {option.param.unit}"
    if low is not None and any(not n >= low for n in numbers):  # `not >=` rather than `<`: NaN is refused too
        return f"at least {low:g}{unit}"
    if high is not None and any(not n <= high for n in numbers):
        return f"at most {high:g}{unit}"
    return None


def _fits(wanted: Any, value: Any) -> bool:
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_fits(arg, value) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(args, value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _fits_tuple(args: Sequence[Any], value: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(_fits(args[0], v) for v in value)
    return len(args) == len(value) and all(_fits(arg, v) for arg, v in zip(args, value, strict=True))


def _name_type(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(repr, get_args(wanted)))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(_name_type(arg) for arg in get_args(wanted))
    return "None" if wanted is type(None) else str(wanted) if get_args(wanted) else wanted.__name__


def _document(doc: str, options: Sequence[Option]) -> str:
    """The docstring of a probe, with a list of its options at the end."""
    lines = [f"    {o.name}: {_name_type(o.type)} = {o.default!r}\n        {o.describe()}" for o in options]
    return f"{doc.rstrip()}\n\n    Options:\n" + "\n".join(lines) if lines else doc
