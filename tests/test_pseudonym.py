"""Pseudonyms are HMAC-SHA256, whatever the key's length."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from ospor_batch.pseudonym import pseudonyms


@given(key=st.binary(max_size=200), texts=st.lists(st.text(), max_size=4))
def test_a_pseudonym_is_the_keyed_hash_of_its_parts(key: bytes, texts: list[str]) -> None:
    def expected(text: str) -> str:
        raw = text.encode("utf-8", "surrogateescape")
        return hmac.digest(key, b"4:file5:north%d:%b" % (len(raw), raw), "sha256").hex()[:32]

    kept = [text for text in texts if text.isprintable()]
    assert pseudonyms(kept, kind="file", issuer="north", key=key) == list(map(expected, kept))
