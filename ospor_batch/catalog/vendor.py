"""One name for each scanner manufacturer and model, one class for each kernel; what was written is kept beside."""

from __future__ import annotations

import re

from ospor_batch.catalog.vocabulary import Vocabulary, fold, vocabulary

# what de-identification and careless devices write in place of a name
NOBODY = re.compile(r"(unknown|none|n/?a|anon\w*|removed|deleted|not (available|specified)|[-.?*x ]*)")


def vendor_of(manufacturer: str | None, *, model: str | None = None, words: Vocabulary | None = None) -> tuple[str, str | None]:
    """The harmonised vendor and where it comes from: manufacturer, else a trade name of one vendor alone.

    other: the manufacturer is not known; unknown: there is none, and the model tells nothing.
    """
    words = words or vocabulary()
    if not NOBODY.fullmatch(fold(manufacturer)):
        return words.first("vendors", manufacturer) or "other", "manufacturer"
    makers = {of.removeprefix("models/") for of in words.lists if of.startswith("models/") and words.first(of, model)}
    return (makers.pop(), "model") if len(makers) == 1 else ("unknown", None)


def model_of(model: str | None, *, vendor: str, words: Vocabulary | None = None) -> str | None:
    """The harmonised model; other when it is not known, null when there is none."""
    if NOBODY.fullmatch(fold(model)):
        return None
    return (words or vocabulary()).first(f"models/{vendor}", model) or "other"


def kernel_class(kernel: str | None, *, vendor: str, words: Vocabulary | None = None) -> str:
    """soft, standard or sharp by the vendor's own naming; unknown when it does not say."""
    first = (kernel or "").split("\\")[0]  # Siemens writes the kernel, then its strength
    return (words or vocabulary()).first(f"kernels/{vendor}", first) or "unknown"
