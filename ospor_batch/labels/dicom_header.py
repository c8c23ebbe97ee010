"""Results in the headers of a densitometer's secondary captures, as the rows that its reports would give.

A device that sends its report as a picture may write the numbers beside it: Hologic as XML in a private element (creator
HOLOGIC, (0021,xx01), "Image Analysis Data in XML"), others as NAME: VALUE lines of the image comments. What an element is
called differs between versions, so nothing is guessed: a number is told under the path of its names, such as
``Region=L1-L4/BMD``, and ``codes`` of the study file says which path is which column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as Xml

XML_OF = (("HOLOGIC", 0x0021, 0x01), ("Hologic", 0x0021, 0x01))  # creator, group, element; pydicom's private dictionary
NAMED_BY = ("name", "id", "region", "site", "code", "label", "type")  # attributes that tell one of several like elements apart
LARGEST_XML = 2_000_000  # characters; an analysis of one exam is a few thousand
NUMBER = r"[+-]?\d+(?:[.,]\d+)?"
LINE = re.compile(rf"^\s*(?P<name>[^:=\n]{{1,60}}?)\s*[:=]\s*(?P<value>{NUMBER})\s*(?P<unit>[A-Za-z%/²0-9^]{{0,12}})\s*$")
Item = tuple[str, str, str, str]


def header_numbers(of: Any) -> Iterator[Item]:
    """Code, meaning, value and unit of every number that a header names; no pixel is read."""
    for creator, group, element in XML_OF:
        text = _private(of, creator, group, element)
        if text is not None:
            yield from _of_xml(text)
    for line in str(of.get("ImageComments", "") or "").splitlines():
        if (found := LINE.match(line)) is not None:
            yield found["name"], found["name"], found["value"], found["unit"]


def _private(of: Any, creator: str, group: int, element: int) -> str | None:
    try:
        value = of.private_block(group, creator)[element].value
    except KeyError:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")


def _of_xml(text: str) -> Iterator[Item]:
    """Numbers of a document; one that is too large, broken, or declares entities has none."""
    if len(text) > LARGEST_XML or "<!" in text.replace("<!--", ""):
        return
    try:
        root = Xml.fromstring(text)  # noqa: S314 -- documents with a DOCTYPE, the door of entities, were turned away
    except Xml.ParseError:
        return
    yield from _leaves(root, None)


def _leaves(node: Xml.Element, above: str | None) -> Iterator[Item]:
    """Numbers below a node; above is null for the outermost, which names the document and stands in no path."""
    own = _plain(node.tag)
    name = next((node.get(key) for key in node.keys() if key.lower() in NAMED_BY), None)  # noqa: SIM118 -- no dict
    path = f"{above or ''}{own}={name}" if name else f"{above or ''}{own}"
    unit = next((node.get(key) or "" for key in node.keys() if key.lower() in {"unit", "units"}), "")  # noqa: SIM118
    text = (node.text or "").strip()
    if re.fullmatch(NUMBER, text):
        yield path, own, text, unit
    for key, value in node.items():
        if key.lower() not in {*NAMED_BY, "unit", "units"} and re.fullmatch(NUMBER, value.strip()):
            yield f"{path}/{_plain(key)}", _plain(key), value.strip(), unit
    for child in node:
        yield from _leaves(child, "" if above is None else f"{path}/")


def _plain(tag: str) -> str:
    return tag.rsplit("}", 1)[-1]
