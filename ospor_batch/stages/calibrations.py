"""A calibration file sealed to a model folder, and a model folder's calibration written as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ospor_batch.errors import StudyError
from ospor_batch.models.bundle import open_bundle
from ospor_batch.models.calibration_file import calibration_text, seal_calibration
from ospor_batch.stages.specs import refuse_without_packages
from ospor_batch.store import write_text


@dataclass(frozen=True)
class Sealed:
    """What a sealed calibration holds for. digest: of the model folder, as tables name it. sha256: of the file."""

    digest: str
    vendor: str
    scanner_model: str
    material: str
    method: str
    kvp_kv: tuple[float, ...]
    n: tuple[int, ...]
    sha256: str


def seal(file: Path, *, out: Path) -> Sealed:
    """Seal a calibration file; StudyError names what is missing in it."""
    refuse_without_packages()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{file}: cannot be read as UTF-8 text ({type(error).__name__}); docs/calibration.md shows one"
        ) from None
    digest = seal_calibration(text, folder=out)
    said: dict[str, Any] = open_bundle(out).spec["calibration_file"]
    words = {name: said[name] for name in ("vendor", "scanner_model", "material", "method", "sha256")}
    return Sealed(digest=digest, kvp_kv=tuple(said["kvp_kv"]), n=tuple(said["n"]), **words)


def unseal(model: Path, *, file: Path) -> None:
    """Write the calibration file of a model folder; StudyError when the file stands already."""
    refuse_without_packages()
    if file.exists():
        raise StudyError(f"{file} exists and is left as it is; name another file")
    write_text(calibration_text(open_bundle(model)), target=file)
