"""What a study may change about the catalog: words, linkage, the smallest stack."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from ospor_batch.catalog.quality import SMALLEST_STACK
from ospor_batch.catalog.vocabulary import Vocabulary, vocabulary
from ospor_batch.pseudonym import Linkage

VERSION = 2  # raised when this package judges a series differently; catalogs are then computed anew


@dataclass(frozen=True)
class Rules:
    """The rules that a catalog was made by."""

    words: Vocabulary = field(default_factory=vocabulary)
    linkage: Linkage = field(default_factory=Linkage)
    smallest_stack: int = SMALLEST_STACK

    @property
    def digest(self) -> str:
        """SHA-256 (first 16 digits) over all that may change a verdict; other rules make another catalog."""
        of = self.linkage
        told = [VERSION, self.words.digest, self.smallest_stack, of.strips_leading_zeros, of.is_issuer_key]
        told += [sorted(of.own_issuers), sorted((*numbers, person) for numbers, person in of.crosswalk.items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
