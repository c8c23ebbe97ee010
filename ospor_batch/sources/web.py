"""Requests to one web server over one kept connection: JSON and files, retries, credentials from the environment alone."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from ospor_batch.errors import ItemRefused

TIMEOUT_S = 120
TRIES = 4
FIRST_PAUSE_S = 0.2  # doubles with each try
BUSY = (429, 500, 502, 503, 504)
LARGEST_JSON = 512 << 20
BLOCK = 1 << 20
MORE = re.compile(r"\s*299\b.*additional results", re.IGNORECASE | re.DOTALL)


class WebServer:
    """One server below one base URL (http or https)."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._is_secure = parts.scheme == "https"
        self.place = parts.netloc
        self._base = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection | None = None

    def json(self, path: str, query: dict[str, str | int] | None = None) -> Any:
        """The answer as JSON; null when there is nothing. ItemRefused as _answer says, and read_error for what is no JSON."""
        return self.page(path, query)[0]

    def page(self, path: str, query: dict[str, str | int] | None = None) -> tuple[Any, bool]:
        """The answer as json gives it, and whether the server says that it holds back further results (PS3.18 8.3.4.4)."""
        answer = self._answer(path + (f"?{urlencode(query)}" if query else ""), accept="application/dicom+json")
        content = b"".join(self._blocks(answer, LARGEST_JSON))
        if answer.status == http.HTTPStatus.NO_CONTENT or not content.strip():
            return None, False
        is_cut = any(MORE.match(warning) for warning in answer.headers.get_all("Warning", []))
        try:
            return json.loads(content), is_cut
        except ValueError:
            raise ItemRefused("read_error", "the server's answer is no JSON", is_transient=True) from None

    def save(self, path: str, *, accept: str, out: BinaryIO, limit: int) -> str:
        """Write the answer's body to a file and return its content type."""
        answer = self._answer(path, accept=accept)
        for block in self._blocks(answer, limit):
            out.write(block)
        return answer.headers.get("Content-Type", "")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, path: str, *, accept: str) -> http.client.HTTPResponse:
        """An answer with status 200 or 204.

        ItemRefused, all transient: file_missing (404, 410), permission_denied (401, 403), read_error.
        """
        said = "no answer"
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                answer = self._ask(path, accept)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                said = type(error).__name__
                continue
            if answer.status in {http.HTTPStatus.OK, http.HTTPStatus.NO_CONTENT}:
                return answer
            self.close()  # the body is not wanted
            said = f"status {answer.status}"
            if answer.status not in BUSY:
                break
        raise self._refusal(said)

    def _ask(self, path: str, accept: str) -> http.client.HTTPResponse:
        if self._connection is None:
            of = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
            self._connection = of(self.place, timeout=TIMEOUT_S)
        headers = {"Accept": accept, "Connection": "keep-alive", **authorization(self.place)}
        self._connection.request("GET", f"{self._base}/{path}", headers=headers)
        return self._connection.getresponse()

    def _refusal(self, said: str) -> ItemRefused:
        if said in {"status 404", "status 410"}:
            return ItemRefused("file_missing", "the server no longer has it", is_transient=True)
        if said in {"status 401", "status 403"}:
            return ItemRefused("permission_denied", f"the server refuses with {said}", is_transient=True)
        return ItemRefused("read_error", f"the server: {said}", is_transient=True)

    def _blocks(self, answer: http.client.HTTPResponse, limit: int) -> Any:
        n_bytes = 0
        try:
            while block := answer.read(BLOCK):
                n_bytes += len(block)
                if n_bytes > limit:
                    self.close()
                    raise ItemRefused("archive_limit", f"the server sends more than {limit} bytes")
                yield block
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ItemRefused("read_error", f"the server: {type(error).__name__}", is_transient=True) from None


def variables(place: str) -> tuple[str, str, str]:
    """The environment variables of a server's token, user and password: its own, so that none gets another's."""
    name = re.sub(r"[^A-Z0-9]", "_", place.upper())
    return f"OSPOR_DICOMWEB_TOKEN_{name}", f"OSPOR_DICOMWEB_USER_{name}", f"OSPOR_DICOMWEB_PASSWORD_{name}"


def authorization(place: str) -> dict[str, str]:
    """The header that lets us in, from the environment; empty where nothing is set."""
    token, user, password = (os.environ.get(name) for name in variables(place))
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {}
