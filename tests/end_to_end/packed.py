"""A folder of files as zips, as tars, in a bucket of a local S3 server, in a local Orthanc."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "not-a-secret"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def as_zip(folder: Path, target: Path) -> None:
    """Every second file deflated, the others stored."""
    with zipfile.ZipFile(target, "w") as packed:
        for n, path in enumerate(files_of(folder)):
            method = zipfile.ZIP_DEFLATED if n % 2 else zipfile.ZIP_STORED
            packed.write(path, path.relative_to(folder).as_posix(), compress_type=method)


def as_tar(folder: Path, target: Path, *, mode: str = "w:gz") -> None:
    with tarfile.open(target, mode) as packed:  # type: ignore[call-overload]
        for path in files_of(folder):
            packed.add(path, path.relative_to(folder).as_posix())


def as_mixture(folder: Path, target: Path) -> None:
    """A folder of archives: one below each top entry, zip, tar.xz and tar.gz in turn; loose files in a zip inside a tar."""
    target.mkdir()
    loose = io.BytesIO()
    with zipfile.ZipFile(loose, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            packed.write(path, path.name)
    with tarfile.open(target / "loose.tar", "w") as outer:
        info = tarfile.TarInfo("inner/files.zip")
        info.size = len(loose.getvalue())
        outer.addfile(info, io.BytesIO(loose.getvalue()))
    for n, top in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        if n % 3 == 0:
            as_zip(top, target / f"{top.name}.zip")
        else:
            as_tar(top, target / f"{top.name}.tar{('.xz', '.gz')[n % 3 - 1]}", mode=("w:xz", "w:gz")[n % 3 - 1])


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local S3 server, with the environment that leads every S3 tool to it."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    from ospor_batch.sources import objects

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"), timeout=30):
        pass  # the server's buckets live in this process and outlive it
    told = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (told | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    forget_client(objects)
    try:
        yield
    finally:
        forget_client(objects)
        server.stop()


def forget_client(objects: object) -> None:
    """A client remembers the endpoint that it was made with."""
    import s3fs

    objects._filesystem.cache_clear()  # type: ignore[attr-defined]
    s3fs.S3FileSystem.clear_instance_cache()


def upload(folder: Path, *, bucket: str, prefix: str) -> None:
    import s3fs

    store = s3fs.S3FileSystem()
    if not store.exists(bucket):
        store.call_s3("create_bucket", Bucket=bucket)
    for path in files_of(folder):
        store.pipe_file(f"{bucket}/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextmanager
def orthanc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local Orthanc with DICOMweb and a password, its root as a study file names it; skips where it is not installed."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"), "Plugins": [str(PLUGIN)],
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "KeepAlive": True,
        "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD}, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(told))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    place = f"127.0.0.1:{port}"
    monkeypatch.setenv(f"OSPOR_DICOMWEB_USER_127_0_0_1_{port}", USER)
    monkeypatch.setenv(f"OSPOR_DICOMWEB_PASSWORD_127_0_0_1_{port}", PASSWORD)
    try:
        _await(place, server)
        yield f"dicomweb+http://{place}/dicom-web"
    finally:
        server.terminate()
        server.wait(timeout=20)


def _await(place: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if server.poll() is not None:
            pytest.fail("Orthanc ended by itself")
        try:
            request("GET", place, "/system")
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("Orthanc does not answer")


def request(method: str, place: str, path: str, body: bytes | None = None) -> bytes:
    from ospor_batch.sources.web import authorization

    asked = urllib.request.Request(f"http://{place}{path}", data=body, method=method, headers=authorization(place))
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return bytes(answer.read())


def store_in(root: str, files: list[Path]) -> list[Path]:
    """Send files to Orthanc; those that it took as new instances."""
    place = root.split("/")[2]
    taken = []
    for path in files:
        try:
            answer = json.loads(request("POST", place, "/instances", path.read_bytes()))
        except urllib.error.HTTPError:
            continue
        if answer.get("Status") == "Success":
            taken.append(path)
    return taken
