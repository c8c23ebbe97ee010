"""DICOM files with realistic headers of about 140 elements, written without any DICOM library.

An archive of series in folder order; the same with numbers in their shortest form, whose length changes from file to file;
and one hostile to layouts: each of its series has its own set of elements, texts of its own length, and values whose length
changes too.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

ROOT = "1.2.826.0.1.3680043.10.9999"
LONG = {"OB", "OW", "SQ", "UN", "UT", "OF"}
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
Element = tuple[int, str, bytes]
VENDORS = [("SIEMENS", "SOMATOM Force", "Br40d\\3"), ("GE MEDICAL SYSTEMS", "Revolution CT", "STANDARD"),
           ("Philips", "iCT 256", "B"), ("Canon Medical Systems", "Aquilion ONE", "FC18")]  # fmt: skip
# group, first element, value representation, values: what CT scanners write beside the elements that a catalog needs
FILLING = """
0008 0012 DA 20190312|0008 0013 TM 101112.123000|0008 0014 UI 1.2.3.4.5|0008 002A DT 20190312101213.100000
0008 0030 TM 101112.123|0008 0031 TM 101212.5|0008 0033 TM 101214|0008 0081 ST 1 Hospital Road, Town|0008 0090 PN REF^DOC
0008 1010 SH CT01
0008 1040 LO Radiology|0008 1048 PN DOC^A|0008 1050 PN DOC^B|0008 1060 PN READ^A|0008 1070 PN TECH^A|0008 2111 ST none
0010 0010 PN PATIENT^NAME|0010 1000 LO OTHER|0010 2160 SH x|0010 21B0 LT fall; back pain; fall; back pain; fall; back pain
0010 21C0 US 4|0010 4000 LT no comment|0012 0062 CS NO|0018 0022 CS HELICAL MODE|0018 0090 DS 500|0018 1049 DS 3
0018 1110 DS 1085.6|0018 1111 DS 595|0018 1130 DS 148|0018 1140 CS CW|0018 1150 IS 500|0018 1170 IS 25|0018 1190 DS 0.8
0018 1200 DA 20190311|0018 1201 TM 070000|0018 1250 SH BODY|0018 9305 FD 1|0018 9306 FD 2|0018 9307 FD 3|0018 9309 FD 4
0018 9310 FD 5|0018 9311 FD 6|0018 9313 FD 7|0018 9318 FD 8|0018 9323 CS XYZ_EC|0018 9324 FD 9|0020 0010 SH 1|0020 1040 LO BB
0020 4000 LT synthetic; not a patient|0028 0106 US 0|0028 0107 US 4095|0028 1055 LO W1\\W2|0032 1032 PN REF^DOC
0032 1060 LO CT ABDOMEN PELVIS|0038 0300 LO ED|0040 0244 DA 20190312|0040 0245 TM 101112|0040 0253 SH PPS1|0040 0254 LO CT A/P
0040 0280 ST ok|0040 1001 SH RP1|0040 1400 LT none|0018 1000 LO SN1|0018 1016 LO none|0018 1018 LO none|0008 1080 LO screening
0008 0092 ST none|0010 1040 LO address|0010 2110 LO none|0010 2150 LO KR|0018 0015 CS ABDOMEN|0018 1020 LO syngo CT VB20A
0018 1151 IS 210|0018 1152 IS 105|0018 1160 SH FLAT|0018 1210 SH Br40d|0018 5100 CS FFS|0020 1002 IS 200|0028 2110 CS 00
"""


def _encode(elements: list[Element], *, is_explicit: bool) -> bytes:
    parts = []
    for tag, vr, value in elements:
        held = value + ((b"\0" if vr in {"UI", "OB", "UN"} else b" ") if len(value) % 2 else b"")
        group, element = tag >> 16, tag & 0xFFFF
        if not is_explicit:
            parts.append(struct.pack("<HHI", group, element, len(held)))
        elif vr in LONG:
            parts.append(struct.pack("<HH2sHI", group, element, vr.encode(), 0, len(held)))
        else:
            parts.append(struct.pack("<HH2sH", group, element, vr.encode(), len(held)))
        parts.append(held)
    return b"".join(parts)


def _items(contents: list[list[Element]], *, is_explicit: bool) -> bytes:
    encoded = [_encode(content, is_explicit=is_explicit) for content in contents]
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in encoded)


def _value(vr: str, text: str) -> bytes:
    if vr == "US":
        return struct.pack("<H", int(text))
    return struct.pack("<d", float(text)) if vr == "FD" else text.encode()


def _series(number: int, *, is_explicit: bool, rng: random.Random) -> dict[int, Element]:
    """The elements that all files of a series share."""
    maker, model, kernel = VENDORS[number % len(VENDORS)]
    day = f"20{10 + number % 12:02d}0{1 + number % 9}1{number % 9}"
    code = [(0x00080100, "SH", b"CTAP"), (0x00080102, "SH", b"LOCAL"), (0x00080104, "LO", b"CT abdomen pelvis")]
    image = [(0x00081150, "UI", CT_IMAGE.encode()), (0x00081155, "UI", f"{ROOT}.7.{number}".encode())]
    found: dict[int, Element] = {}
    for entry in FILLING.replace("\n", "|").split("|"):
        if entry:
            group, element, vr, text = entry.split(" ", 3)
            found[int(group + element, 16)] = (int(group + element, 16), vr, _value(vr, text))
    told = {
        0x00080005: ("CS", "ISO_IR 100"), 0x00080008: ("CS", "ORIGINAL\\PRIMARY\\AXIAL"), 0x00080016: ("UI", CT_IMAGE),
        0x00080020: ("DA", day), 0x00080021: ("DA", day), 0x00080022: ("DA", day), 0x00080023: ("DA", day),
        0x00080050: ("SH", f"A{number:08d}"), 0x00080060: ("CS", "CT"), 0x00080070: ("LO", maker),
        0x00080080: ("LO", f"CENTER {number % 7}"), 0x00081030: ("LO", "CT ABDOMEN/PELVIS W CONTRAST"),
        0x0008103E: ("LO", f"ABD/PEL 1.0 {kernel}"), 0x00081090: ("LO", model), 0x00100020: ("LO", f"P{number // 2:08d}"),
        0x00100021: ("LO", "HOSP"), 0x00100030: ("DA", "19500101"), 0x00100040: ("CS", "FM"[number % 2]),
        0x00101010: ("AS", "069Y"), 0x00101020: ("DS", "1.65"), 0x00101030: ("DS", "70"), 0x00180010: ("LO", "OMNI 350"),
        0x00180050: ("DS", "1.0"), 0x00180060: ("DS", "120"), 0x00181030: ("LO", "AbdPelvis"), 0x00181040: ("LO", "IV"),
        0x00181041: ("DS", "100"), 0x00181100: ("DS", "380"), 0x00181120: ("DS", "0"), 0x00189345: ("FD", "7.1"),
        0x00181210: ("SH", kernel), 0x0020000D: ("UI", f"{ROOT}.1.{number // 2}"), 0x0020000E: ("UI", f"{ROOT}.2.{number}"),
        0x00200011: ("IS", str(number % 20 + 1)), 0x00200012: ("IS", "1"), 0x00200037: ("DS", "1\\0\\0\\0\\1\\0"),
        0x00200052: ("UI", f"{ROOT}.3.{number}"), 0x00280002: ("US", "1"), 0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", "16"), 0x00280011: ("US", "16"), 0x00280030: ("DS", "0.742188\\0.742188"), 0x00280100: ("US", "16"),
        0x00280101: ("US", "12"), 0x00280102: ("US", "11"), 0x00280103: ("US", "0"), 0x00281050: ("DS", "50\\300"),
        0x00281051: ("DS", "400\\1500"), 0x00281052: ("DS", "-1024"), 0x00281053: ("DS", "1"), 0x00281054: ("LO", "HU"),
    }  # fmt: skip
    found.update({tag: (tag, vr, _value(vr, text)) for tag, (vr, text) in told.items()})
    for tag, contents in {0x00081032: [code], 0x00081110: [image], 0x00081140: [image] * 3, 0x00082112: [image],
                          0x00189346: [code], 0x00400275: [code], 0x00321064: [code]}.items():  # fmt: skip
        found[tag] = (tag, "SQ", _items(contents, is_explicit=is_explicit))
    private = {0x00090010: ("LO", b"SIEMENS CT VA1 DUMMY"), 0x00091010: ("LO", b"PRIVATE"), 0x00190010: ("LO", b"COAD")}
    private |= {0x00191020: ("OB", rng.randbytes(512)), 0x00290010: ("LO", b"CSA"), 0x00291010: ("OB", rng.randbytes(1024))}
    found.update({tag: (tag, vr, value) for tag, (vr, value) in private.items()})
    return found


def _file(series: dict[int, Element], number: int, *, at: int, is_explicit: bool, is_shortest: bool) -> bytes:
    instance = f"{ROOT}.4.{number}.{at + 1}".encode()
    place, current = (at * 0.625 - 50.5, 60 + at * 7 % 90) if is_shortest else (at - 500.0, 180 + at * 7 % 90)
    changing: list[Element] = [
        (0x00080018, "UI", instance), (0x00080032, "TM", f"1012{at // 60 % 60:02d}.{at % 60:02d}".encode()),
        (0x00200013, "IS", str(at + 1).encode()), (0x00200032, "DS", f"-190\\-340\\{place}".encode()),
        (0x00201041, "DS", str(place).encode()), (0x00181151, "IS", str(current).encode()),
    ]  # fmt: skip
    whole = series | {element[0]: element for element in changing} | {0x7FE00010: (0x7FE00010, "OW", bytes(512))}
    syntax = (EXPLICIT if is_explicit else IMPLICIT).encode()
    meta: list[Element] = [
        (0x00020001, "OB", b"\0\1"), (0x00020002, "UI", CT_IMAGE.encode()), (0x00020003, "UI", instance),
        (0x00020010, "UI", syntax), (0x00020012, "UI", f"{ROOT}.0".encode()), (0x00020013, "SH", b"OSPOR"),
    ]  # fmt: skip
    group = _encode(meta, is_explicit=True)
    length = _encode([(0x00020000, "UL", struct.pack("<I", len(group)))], is_explicit=True)
    return bytes(128) + b"DICM" + length + group + _encode([whole[tag] for tag in sorted(whole)], is_explicit=is_explicit)


def files(n: int, *, per_series: int, is_hostile: bool = False, is_shortest: bool = False) -> Iterator[tuple[str, bytes]]:
    """Path and content of n files; every tenth series is implicit."""
    rng = random.Random(1)  # the same archive every time
    needed = {0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280103}
    for number in range((n + per_series - 1) // per_series):
        is_explicit = number % 10 != 9
        series = _series(number, is_explicit=is_explicit, rng=rng)
        if is_hostile:
            for tag in rng.sample(sorted(set(series) - needed), 30):
                del series[tag]
            for tag in (0x0008103E, 0x00181030):
                series[tag] = (tag, "LO", b"x" * rng.randint(1, 40))
        for at in range(min(per_series, n - number * per_series)):
            if is_hostile and rng.random() < 0.3:
                series[0x00204000] = (0x00204000, "LT", b"y" * rng.randint(1, 60))
            folder = f"C{number % 7}/P{number // 2:06d}/SE{number:06d}"
            yield f"{folder}/I{at:06d}.dcm", _file(series, number, at=at, is_explicit=is_explicit, is_shortest=is_shortest)


def write_archive(root: Path, n: int, *, per_series: int, is_hostile: bool = False, is_shortest: bool = False) -> None:
    """Write n files below root, unless they are there."""
    if (root / f"whole-{n}").exists():
        return
    made: set[Path] = set()
    for path, content in files(n, per_series=per_series, is_hostile=is_hostile, is_shortest=is_shortest):
        target = root / path
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.write_bytes(content)
    (root / f"whole-{n}").touch()
