"""Records: the provenance inside a picture that vizcnn has saved, written and read again.

By it a picture that was sent to somebody can be traced to its making, and our pictures in a folder can be told from a
person's own, whatever their names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vizcnn.process import ignore_warnings

_KEY = "vizcnn"
_EXIF, _COMMENT = 0x8769, 0x9286  # the tags of EXIF's own directory, and of its UserComment
_ASCII = b"ASCII\0\0\0"  # how a UserComment says its encoding
_ROOM = 60_000  # bytes; all metadata of a JPEG file share a segment of 64 KiB
_START = 4096  # bytes of a file, in which a record begins
_PDF = b"%PDF-"
_SUBJECT = re.compile(rb"/Subject \((" + _KEY.encode() + rb" (?:[^\\()]|\\.)*)\)", re.DOTALL)


def save_options(kind: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which Pillow's `save` puts the record into a file.

    kind: `png` (a text chunk named vizcnn), `jpg` or `jpeg` (EXIF UserComment), `gif` (comment). A record that JPEG has
    no room for loses its longest entries, mostly the lists of images and targets."""
    if kind == "png":
        chunks = PngInfo()
        chunks.add_text(_KEY, _to_json(provenance))
        return {"pnginfo": chunks}
    if kind == "gif":
        return {"comment": to_text(provenance).encode("ascii")}
    kept = dict(provenance)
    while len(text := to_text(kept)) > _ROOM:
        del kept[max(kept, key=lambda name: len(_to_json(kept[name])))]
    exif = Image.Exif()
    exif[_EXIF] = {_COMMENT: _ASCII + text.encode("ascii")}
    return {"exif": exif}


def to_text(provenance: Mapping[str, Any]) -> str:
    """The record as one ASCII text that names its maker, for formats that have a place for a comment."""
    return f"{_KEY} {_to_json(provenance)}"


def _to_json(value: Any) -> str:
    """JSON in ASCII. What JSON does not know, such as a number of numpy or a path, is written as its text, so that no
    picture is refused for it."""
    return json.dumps(value, default=str)


def provenance_in(path: str | Path) -> dict[str, Any] | None:
    """The provenance inside a picture (.png, .jpg, .gif or .pdf) that vizcnn has saved, as a dictionary.

    It has `partial` where Ctrl-C ended the computation early. None for any other file. Only the start of the file is
    read, of a .pdf all of it, and no pixel is decoded.

        vizcnn.inputs.provenance_in("photo-occlusion.png")["weights_sha256"]
    """
    try:
        if not os.path.isfile(path):  # reading a pipe may wait for ever
            return None
        with open(path, "rb") as file:
            start = file.read(_START)
            if start.startswith(_PDF):
                found = json.loads(_read_pdf(start + file.read()))
            elif _KEY.encode() not in start:  # quick, for folders of very many images
                return None
            else:
                file.seek(0)
                with ignore_warnings(), Image.open(file, formats=["PNG", "JPEG", "GIF"]) as image:
                    found = json.loads(_read_text(image))
    except Exception:  # what cannot be opened, or whose text is no JSON, does not come from here
        return None
    return found if isinstance(found, dict) else None


def _read_text(image: Image.Image) -> str:
    """The record in a picture, as JSON; "" where there is none."""
    if image.format == "PNG":
        return str(image.info.get(_KEY, ""))
    comment = image.info.get("comment", b"") if image.format == "GIF" else image.getexif().get_ifd(_EXIF).get(_COMMENT)
    said = comment.removeprefix(_ASCII).decode("ascii") if isinstance(comment, bytes) else str(comment)
    return said.removeprefix(f"{_KEY} ") if said.startswith(f"{_KEY} ") else ""


def _read_pdf(contents: bytes) -> str:
    """The record in a .pdf, as JSON; "" where there is none. It is the subject, of whose signs some are escaped."""
    subjects = _SUBJECT.findall(contents)
    return re.sub(r"\\(.)", r"\1", subjects[-1].decode("ascii")).removeprefix(f"{_KEY} ") if subjects else ""
