"""Keyed pseudonyms: stable inside one study, without meaning outside it."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata


def pseudonym(identifier: str, *, kind: str, issuer: str, key: bytes) -> str:
    """HMAC-SHA256 over (kind, issuer or center, identifier), first 32 hexadecimal digits."""
    # lengths stand before the parts, so that ("a|b", "c") and ("a", "b|c") never meet
    parts = (kind, issuer, identifier)
    message = b"".join(f"{len(raw)}:".encode() + raw for raw in (_bytes(p) for p in parts))
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def normal_patient_id(text: str | None) -> str | None:
    """Fold the ways in which one patient number is written: width, blanks, case; None when nothing is left."""
    if text is None:
        return None
    folded = "".join(unicodedata.normalize("NFKC", text).replace("\0", "").split()).upper()
    return folded or None


def split_position(patient_id: str, *, center: str, key: bytes) -> float:
    """Place a person between 0 and 1 by a keyed hash; it does not change when the pseudonym key does."""
    digits = pseudonym(patient_id, kind="split", issuer=center, key=key)[:13]  # 52 bits: exact in a double
    return int(digits, 16) / float(16**13)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
