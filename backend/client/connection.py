"""HTTP to one nextbatch: pages, problems, polling with entity tags, and posts that may be repeated."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from backend.client.shapes import read
from backend.errors import ServiceRefused, ServiceSilent

T = TypeVar("T")
_PAGE = 200


class Connection:
    """For one thread. Raises ServiceRefused and ServiceSilent."""

    def __init__(self, url: str, username: str, password: str, token: str, timeout_s: float) -> None:
        auth = (username, password) if username or password else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        base = f"{url.rstrip('/')}/api/v1"
        self._http = httpx.Client(base_url=base, auth=auth, headers=headers, timeout=timeout_s)
        self.url = str(self._http.base_url)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON."""
        return self._checked(self._send("GET", path, params=query)).json()

    def changed(self, path: str, tag: str) -> tuple[Any, str]:
        """What is there and its entity tag; None and the same tag where nothing changed since `tag`."""
        answer = self._send("GET", path, headers={"If-None-Match": tag} if tag else {})
        if answer.status_code == 304:
            return None, tag
        return self._checked(answer).json(), answer.headers.get("ETag", "")

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer's JSON. Cut off, it is sent once more with the same key, so that it is done once."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            answer = self._http.post(path, json=body, headers=headers)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            answer = self._send("POST", path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise self._silent(error) from error
        return self._checked(answer).json()

    def stream(self, path: str, lines: Iterable[bytes]) -> Any:
        """Send JSON lines as they are made; the answer's JSON."""
        headers = {"Content-Type": "application/x-ndjson"}
        return self._checked(self._send("POST", path, content=iter(lines), headers=headers)).json()

    def rows(self, kind: type[T], path: str, within: str = "", query: Mapping[str, Any] | None = None) -> Iterator[T]:
        """All rows of a list, fetched a page at a time as they are asked for."""
        start: int | None = None
        while True:
            place = {} if start is None else {"from": start}
            answer = self.get(path, {"limit": _PAGE, **(query or {}), **place})
            page = answer[within] if within else answer
            yield from (read(kind, row) for row in page["items"])
            start = page["next"]
            if start is None:
                return

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._silent(error) from error

    def _silent(self, error: httpx.TransportError) -> ServiceSilent:
        return ServiceSilent(url=self.url, problem=type(error).__name__)

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.reason_phrase
        raise ServiceRefused(url=self.url, status=answer.status_code, detail=detail)
