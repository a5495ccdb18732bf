"""The record inside a picture that vizcnn has made: how it is put there, and how it is found again.

It says where the picture comes from, so a picture that was sent to somebody can be traced to its making; and it tells
our pictures from a person's own when a folder is read, whatever either is called.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vizcnn.process import no_warnings

_KEY = "vizcnn"
_EXIF, _COMMENT = 0x8769, 0x9286  # the tags of EXIF's own directory, and of its UserComment
_ASCII = b"ASCII\0\0\0"  # how a UserComment says its encoding
_ROOM = 60_000  # bytes; all metadata of a JPEG file share a segment of 64 KiB
_LISTS = ("images", "targets", "target_specs")  # what makes a record long


def save_options(kind: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What Pillow's `save` has to be told, beside the format, to put the record into a file.

    kind: `png` (a text chunk named vizcnn), `jpg` or `jpeg` (EXIF UserComment), `gif` (comment). A record that JPEG has
    no room for loses its lists of images and targets."""
    if kind == "png":
        chunks = PngInfo()
        chunks.add_text(_KEY, json.dumps(provenance))
        return {"pnginfo": chunks}
    if kind == "gif":
        return {"comment": as_text(provenance).encode("ascii")}
    text = as_text(provenance)
    if len(text) > _ROOM:
        text = as_text({key: value for key, value in provenance.items() if key not in _LISTS})
    exif = Image.Exif()
    exif.get_ifd(_EXIF)[_COMMENT] = _ASCII + text.encode("ascii")
    return {"exif": exif}


def as_text(provenance: Mapping[str, Any]) -> str:
    """The record as one ASCII text that names its maker, for formats that have a place for a comment."""
    return f"{_KEY} {json.dumps(provenance)}"


def provenance_in(path: str | Path) -> dict[str, Any] | None:
    """Where a picture (.png, .jpg or .gif) that vizcnn has saved comes from: its provenance, as a dictionary.

    None for any other file. Only the beginning of the file is read, and nothing is decoded.

        vizcnn.inputs.provenance_in("photo-occlusion.png")["weights_sha256"]
    """
    try:
        if not os.path.isfile(path):  # reading a pipe may wait for ever
            return None
        with no_warnings(), Image.open(path, formats=["PNG", "JPEG", "GIF"]) as image:
            found = json.loads(_text_in(image))
    except Exception:  # what cannot be opened, or whose text is no JSON, does not come from here
        return None
    return found if isinstance(found, dict) else None


def _text_in(image: Image.Image) -> str:
    """The JSON of the record; an empty text where there is none."""
    if image.format == "PNG":
        return str(image.info.get(_KEY, ""))
    comment = image.info.get("comment", b"") if image.format == "GIF" else image.getexif().get_ifd(_EXIF).get(_COMMENT)
    said = comment.removeprefix(_ASCII).decode("ascii") if isinstance(comment, bytes) else str(comment)
    return said.removeprefix(f"{_KEY} ") if said.startswith(f"{_KEY} ") else ""
