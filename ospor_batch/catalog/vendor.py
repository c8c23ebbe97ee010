"""One name for each scanner manufacturer and one class for each kernel; what was written is kept beside."""

from __future__ import annotations

from ospor_batch.catalog.vocabulary import fold, pattern, vocabulary


def vendor_of(manufacturer: str | None) -> str:
    """The harmonised vendor; other when the name is not known, unknown when there is none."""
    text = fold(manufacturer)
    if not text:
        return "unknown"
    for entry in vocabulary("vendors"):
        if pattern(tuple(entry["patterns"])).search(text):
            return str(entry["vendor"])
    return "other"


def kernel_class(kernel: str | None, *, vendor: str) -> str:
    """soft, standard or sharp by the vendor's own naming; unknown when it does not say."""
    text = fold((kernel or "").split("\\")[0])  # Siemens writes the kernel, then its strength
    for entry in vocabulary("kernels").get(vendor, []) if text else []:
        if pattern(tuple(entry["patterns"])).search(text):
            return str(entry["class"])
    return "unknown"
