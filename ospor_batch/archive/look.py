"""One look at an archive before any work: whether it is there, what kind it is, and what it seems to hold."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from ospor_batch.errors import ArchiveError, ItemRefused
from ospor_batch.sources import roots
from ospor_batch.sources.containers import format_of, is_container_name
from ospor_batch.sources.local import is_file, open_file, refusal_of
from ospor_batch.sources.objects import Objects
from ospor_batch.sources.web import authorization
from ospor_batch.sources.zips import Zip

MOST_OBJECTS = 1000  # one page of a listing


def look_at(root: str) -> str:
    """What an archive is, in words; writes nothing. ArchiveError when it cannot be crawled as it is."""
    kind = roots.kind_of(root)
    if kind == "dicomweb":
        return _server(root)
    if kind == "s3":
        return _bucket(root)
    return _file(Path(root)) if is_file(root) else _folder(Path(root))


def lies_within(root: str, other: str) -> bool:
    """Whether an archive is another one, or lies inside it, whatever links lead there."""
    one, two = (f"{place.rstrip('/') if '://' in place else os.path.realpath(place)}/" for place in (root, other))
    return one.startswith(two)


def _folder(root: Path) -> str:
    try:
        with os.scandir(root) as entries:
            names = [(entry.name, is_file(entry.path)) for entry in entries]
    except FileNotFoundError:
        raise ArchiveError("no such folder; expected a folder of DICOM files, or a zip or tar of them") from None
    except OSError as error:
        raise ArchiveError(f"the folder may not be listed ({refusal_of(error).reason}: {error.strerror})") from None
    if not names:
        raise ArchiveError("the folder is empty; is the archive mounted?")
    n_archives = sum(is_plain and is_container_name(name) for name, is_plain in names)
    return f"{len(names)} entries at the top" + (f", {n_archives} of them zips or tars" if n_archives else "")


def _file(root: Path) -> str:
    try:
        with open_file(root) as file:
            form = format_of(file)
            size = file.seek(0, 2)
            if form == "zip":
                members = list(Zip(file, size=size).members())
                n_refused = sum(member.refusal is not None for member in members)
                return f"a zip of {len(members)} files" + (f", {n_refused} of them refused unread" if n_refused else "")
    except ItemRefused as refusal:
        raise ArchiveError(f"the file cannot be read ({refusal})") from None
    if form is None:
        raise ArchiveError("a file that is neither zip nor tar; expected a folder of DICOM files, or a zip or tar of them")
    if form == "tar":
        return f"a tar of {size / 1e6:.0f} MB"
    return f"a tar compressed with {form}, {size / 1e6:.0f} MB; the crawl unpacks it into the private cache"


def _bucket(root: str) -> str:
    base = roots.base_of(root)
    assert isinstance(base.origin, Objects)
    if base.only is not None:
        try:
            status = base.origin.status(base.only)
        except OSError as error:
            raise ArchiveError(f"the bucket cannot be read ({refusal_of(error).reason})") from None
        if status is None:
            raise ArchiveError("the bucket has no such object")
        return f"an archive of {status[0] / 1e6:.0f} MB in a bucket"
    n_objects = sum(1 for _ in itertools.islice(base.origin.listing(), MOST_OBJECTS))
    if n_objects == 0:
        raise ArchiveError("nothing lies below this prefix of the bucket")
    return f"{n_objects}{' or more' if n_objects == MOST_OBJECTS else ''} objects in a bucket"


def _server(root: str) -> str:
    server = roots.server(root)
    try:
        has_studies = server.answers()
    except ItemRefused as refusal:
        raise ArchiveError(f"the server does not answer ({refusal.detail}); {server.hint()}") from None
    if not has_studies:
        raise ArchiveError("the server answers QIDO-RS, but shows no study to this user")
    said = "a server that answers QIDO-RS"
    if not authorization(server.place):
        return f"{said} without credentials"
    return f"{said}; credentials from the environment" + ("" if "+https:" in root else ", which travel unencrypted")
