"""Look at this machine: versions that are known to fail together, codecs, devices, telemetry, disk."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ospor_batch import __version__

Verdict = Literal["ok", "note", "fault"]
LIBRARIES = ("polars", "pyarrow", "deltalake", "pydicom", "nibabel", "distributed", "prefect", "torch", "monai", "dask-cuda")
# transfer syntax -> the distribution that decodes it
CODECS = {
    "JPEG": "pylibjpeg-libjpeg",
    "JPEG-LS": "pylibjpeg-libjpeg",
    "JPEG 2000": "pylibjpeg-openjpeg",
    "RLE": "pylibjpeg-rle",
}
SMALL_DISK_GB = 5.0  # a demo needs under 1 GB; a real catalog several


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, how it is, and what to do."""

    subject: str
    verdict: Verdict
    said: str


def examine(folder: Path) -> list[Finding]:
    """Look at the machine and at the disk that holds a folder."""
    found = [Finding("ospor_batch", "ok", f"{__version__} on Python {platform.python_version()}, {os.cpu_count()} cores")]
    found += [_library(name) for name in LIBRARIES]
    found += [codec_of(syntax, name) for syntax, name in CODECS.items()]
    return [*found, *_flows(), _gpu(), _telemetry(), _disk(folder)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _library(name: str) -> Finding:
    version = _version(name)
    if version is None:
        extra = {"prefect": "flows", "torch": "infer", "monai": "infer", "dask-cuda": "gpu"}.get(name)
        how = f"not installed; pip install 'ospor-batch[{extra}]' where it is needed" if extra else "not installed"
        return Finding(name, "note" if extra else "fault", how)
    return Finding(name, "ok", version)


def codec_of(syntax: str, name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(f"codec {syntax}", "fault", f"{name} is missing: such pixels become rejects; pip install {name}")
    return Finding(f"codec {syntax}", "ok", f"{name} {version}")


def _flows() -> list[Finding]:
    found = []
    for name, limit, harm in (
        ("fastapi", (0, 151), "prefect 3.8.8 crashes in the first flow run with fastapi >= 0.155"),
        ("sqlalchemy", (2, 1), "prefect 3.8.8 never fires a schedule with SQLAlchemy >= 2.1"),
    ):
        version = _version(name)
        if version is None:
            continue
        at = tuple(int(part) for part in version.split(".")[:2])
        fine = at < limit
        said = version if fine else f"{version}: {harm}; pip install '{name}<{limit[0]}.{limit[1]}'"
        found.append(Finding(name, "ok" if fine else "fault", said))
    return found


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "note", "no NVIDIA driver found: inference runs on the CPU")
    if importlib.util.find_spec("dask_cuda") is None:
        return Finding("GPU", "note", "a driver is here but dask-cuda is not: pip install 'ospor-batch[gpu]'")
    return Finding("GPU", "ok", 'driver and dask-cuda are here: [compute.gpu] cluster = "cuda"')


def _telemetry() -> Finding:
    if os.environ.get("DO_NOT_TRACK") == "1" and os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED") == "false":
        return Finding("telemetry", "ok", "off for every library")
    return Finding(
        "telemetry",
        "note",
        "flows switch Prefect's off; for its own commands set DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false",
    )


def _disk(folder: Path) -> Finding:
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    return Finding("disk", "ok" if free >= SMALL_DISK_GB else "note", f"{free:.0f} GB free")
