"""The texts of pictures: names of classes and files may hold anything, and are drawn as they are."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from unicodedata import category

from vizcnn.errors import VizcnnWarning, escape_invisible

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.text import Text

_FAMILIES: dict[str, str | None] = {}  # characters that some font lacked: a family that has it; None where none does
_TOLD: set[str] = set()  # characters of which a warning has said that no font has them
_SOME = 8  # characters that a warning names

_SHAPING = (3, 11)  # the version of matplotlib that joins letters, and sets them from right to left where that is due
_JOINED = re.compile("[\u0590-\u109f\u1780-\u17ff\ufb1d-\ufdff\ufe70-\ufefc]")  # letters of such scripts
_RIGHT_TO_LEFT = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+"
_NAME = re.compile(rf"\u200e?({_RIGHT_TO_LEFT}(?:[^\w\n]+{_RIGHT_TO_LEFT})*)\u200e?")  # \u200e: left-to-right mark


def make_legible(drawn: Artist, known: Mapping[Text, str] | None = None) -> None:
    """Make all texts in a figure or in axes drawable, but for numbers along axes and `known` texts still the same."""
    from matplotlib.axis import Axis

    known = known or {}
    numbers = {text for axis in drawn.findobj(Axis) for text in _find_tick_numbers(axis)}
    settle_texts([text for text in texts_in(drawn) if text not in numbers and known.get(text) != text.get_text()])


def texts_in(drawn: Artist) -> list[Text]:
    """Return all texts in a figure or in axes, the empty ones too."""
    from matplotlib.text import Text

    return drawn.findobj(Text)


def settle_texts(texts: Sequence[Text]) -> None:
    """Make texts drawable, and have them drawn as they are.

    A `$` begins no formula. Characters without a sign are written as escapes. What a text's font lacks is taken from
    another installed one; characters that no installed font has are named in a warning, once. What stands behind a name
    in Arabic or Hebrew stays behind it: else `-0.4` would turn into `0.4-`.
    """
    for text in texts:
        text.set_parse_math(False)
        text.set_text(_NAME.sub("\u200e\\1\u200e", escape_invisible(text.get_text()).replace("\t", " ")))
    _choose_fonts(texts)
    if any(_JOINED.search(text.get_text()) for text in texts):
        _warn_of_letters()


def _find_tick_numbers(axis: Axis) -> set[Text]:
    """Return the numbers along an axis, which matplotlib writes itself, some of them as formulas.

    Where there are names instead, matplotlib would write them anew at each drawing: they are fixed in legible form, and
    none is returned."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter

    if not isinstance(axis.get_major_formatter(), FixedFormatter | StrCategoryFormatter):
        return {*axis.findobj(Text)} - {axis.label}
    names = [label.get_text() for label in axis.get_ticklabels()]
    if any(escape_invisible(name) != name for name in names):
        axis.set_ticks(axis.get_ticklocs(), [escape_invisible(name) for name in names])
    return set()


def _choose_fonts(texts: Sequence[Text]) -> None:
    lacking = {text: found for text in texts if (found := _find_lacking(text))}
    _find_families({*"".join("".join(characters) for characters in lacking.values())} - _FAMILIES.keys())
    for text, characters in lacking.items():
        families = dict.fromkeys(family for each in sorted(characters) if (family := _FAMILIES[each]))
        text.set_fontfamily([*text.get_fontfamily(), *families])
    _warn_of_characters({each for characters in lacking.values() for each in characters if _FAMILIES[each] is None})


def _find_lacking(text: Text) -> set[str]:
    """The characters of a text that none of its fonts has."""
    from matplotlib.font_manager import findfont, get_font

    lacking = {each for each in text.get_text() if not each.isascii() and _is_drawn(each)}
    for family in text.get_fontfamily() if lacking else ():
        one = text.get_fontproperties().copy()
        one.set_family(family)
        font = get_font(findfont(one))
        lacking = {each for each in lacking if not font.get_char_index(ord(each))}
    return lacking


def _is_drawn(character: str) -> bool:
    """Whether a character has a shape of its own; spaces, marks of direction and choices of a variant have none."""
    return category(character) not in ("Cf", "Zs", "Zl", "Zp") and not 0xFE00 <= ord(character) <= 0xFE0F


def _find_families(characters: set[str]) -> None:
    """Find an installed family of fonts for each character."""
    from matplotlib.ft2font import FT2Font

    missing = {*characters}
    for family, path in _list_fonts() if missing else ():
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # a file that is gone or damaged
            continue
        found = {each for each in missing if font.get_char_index(ord(each))}
        if found and (name := family or _add_font(path)):
            _FAMILIES.update(dict.fromkeys(found, name))
            missing -= found
        if not missing:
            return
    _FAMILIES.update(dict.fromkeys(missing))


def _list_fonts() -> Iterator[tuple[str, str]]:
    """Families of fonts with a file of each: first those that have helped before, then upright ones of usual weight,
    and at last files that matplotlib does not know yet, without their family."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {entry.fname for entry in fontManager.ttflist}
    usable = [entry for entry in fontManager.ttflist if not _is_misleading(entry.name)]
    usable.sort(
        key=lambda entry: (
            entry.name not in _FAMILIES.values(),
            entry.style != "normal",
            entry.weight != 400,
            "Sans" not in entry.name,
        )
    )
    yield from ((entry.name, entry.fname) for entry in usable)
    yield from (("", path) for path in findSystemFonts() if path not in known)


def _is_misleading(family: str) -> bool:
    """Whether a family of fonts draws the same frame for all characters of a script, or letters under others' codes."""
    return family.startswith("Last Resort") or (family.startswith("cm") and family.endswith("10"))


def _add_font(path: str) -> str | None:
    """Tell matplotlib of a font that was installed after it had looked for fonts. Returns the font's family."""
    from matplotlib.font_manager import fontManager

    try:
        fontManager.addfont(path)
    except (OSError, RuntimeError, NotImplementedError):  # such as one that cannot be scaled
        return None
    return fontManager.ttflist[-1].name


def _warn_of_letters() -> None:
    from matplotlib import __version__, __version_info__

    if __version_info__ < _SHAPING and "letters" not in _TOLD:
        _TOLD.add("letters")
        warnings.warn(
            f"matplotlib {__version__} draws Arabic, Hebrew and Indic letters apart and from left to right. Update it "
            f"to {'.'.join(map(str, _SHAPING))} or newer",
            VizcnnWarning,
            stacklevel=2,
        )


def _warn_of_characters(characters: set[str]) -> None:
    if new := sorted(characters - _TOLD):
        _TOLD.update(new)
        some = ", ".join(f"{each} (U+{ord(each):04X})" for each in new[:_SOME])
        more = f" and {len(new) - _SOME} more" if len(new) > _SOME else ""
        warnings.warn(
            f"no installed font has {some}{more}: pictures show a box for each. Install fonts that do, such as Noto's",
            VizcnnWarning,
            stacklevel=2,
        )
