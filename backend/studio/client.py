"""Label Studio over HTTP: one place for addresses, tokens, retries and what its refusals mean.

Plain httpx: the SDK takes seconds and hundreds of megabytes to import, and the web process loads this module.
"""

import base64
import json
import threading
from collections.abc import Mapping
from typing import Any, Self

import httpx
import tenacity

from backend.connections import certificates
from backend.errors import (
    BadToken,
    LabelStudioRefused,
    LabelStudioUnreachable,
    NoSuchPage,
    NotAllowed,
    SlowLabelStudio,
)
from backend.pool.http import shown

MAX_ANSWER_BYTES = 1 << 28
_ATTEMPTS = 4
_SAFE_TO_REPEAT = frozenset({"GET", "PATCH", "DELETE"})
_AWAY = frozenset({429, 502, 503, 504})
Parameters = Mapping[str, str | int | bool]


class _Again(Exception):
    """An attempt failed in a way that another one may mend; `cause` is what to raise when none does."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Studio:
    """A session with one Label Studio. Threads may share it. Close it, or use it in a `with`.

    `api_key` is a personal access token (a refresh token: it is exchanged for access tokens that live minutes) or a
    legacy token. GET, PATCH and DELETE are repeated on lost connections and passing errors; a POST is repeated only
    where it cannot have arrived. `timeout_s` bounds each answer; a call that does more work gives its own.
    """

    def __init__(self, url: str, api_key: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._shown = shown(self.url)
        self.timeout_s = timeout_s
        self._api_key = api_key.strip()
        if not self._api_key or not self._api_key.isascii():
            raise BadToken(url=self._shown)
        self.is_personal = _is_refresh_token(self._api_key)
        self._access: str | None = None
        self._lock = threading.Lock()
        # Label Studio is an address of the user's own: proxies of the environment are not asked.
        self._http = httpx.Client(
            base_url=self.url, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False, verify=certificates()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Studio({self._shown!r})"

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def get(self, path: str, params: Parameters | None = None, timeout_s: float | None = None) -> Any:
        """The JSON at `path`. Like the others below: raises BadToken, NotAllowed, NoSuchPage, LabelStudioRefused,
        LabelStudioUnreachable or SlowLabelStudio."""
        return self._call("GET", path, None, params, timeout_s)

    def post(
        self, path: str, json: Any = None, params: Parameters | None = None, timeout_s: float | None = None
    ) -> Any:
        """Send JSON; the answer's JSON, None where it is empty."""
        return self._call("POST", path, json, params, timeout_s)

    def patch(
        self, path: str, json: Any = None, params: Parameters | None = None, timeout_s: float | None = None
    ) -> Any:
        """Change what stands at `path`; what it is now."""
        return self._call("PATCH", path, json, params, timeout_s)

    def delete(
        self, path: str, json: Any = None, params: Parameters | None = None, timeout_s: float | None = None
    ) -> Any:
        """Delete what stands at `path`."""
        return self._call("DELETE", path, json, params, timeout_s)

    def _call(self, method: str, path: str, body: Any, params: Parameters | None, timeout_s: float | None) -> Any:
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=0.2, max=5.0) + tenacity.wait_random(0.0, 0.3),
            retry=tenacity.retry_if_exception_type(_Again),
            reraise=True,
        )
        try:
            return attempts(self._attempt, method, path, body, params, timeout_s or self.timeout_s)
        except _Again as again:
            raise again.cause from None

    def _attempt(self, method: str, path: str, body: Any, params: Parameters | None, timeout_s: float) -> Any:
        token = self._authorization()
        answer = self._send(method, path, body, params, timeout_s, token)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self.is_personal:
            answer = self._send(method, path, body, params, timeout_s, self._authorization(instead_of=token))
        return self._read(answer, method, path)

    def _send(
        self, method: str, path: str, body: Any, params: Parameters | None, timeout_s: float, token: str
    ) -> httpx.Response:
        headers = {"Authorization": token} if token else {}
        try:
            with self._http.stream(
                method,
                path,
                json=body,
                params=dict(params or {}),
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=5.0),
            ) as answer:
                return self._bounded(answer, f"{method} {path}")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Again(LabelStudioUnreachable(url=self._shown, problem=_told(error))) from None
        except httpx.TimeoutException:
            slow = SlowLabelStudio(url=self._shown, request=f"{method} {path}", timeout_s=timeout_s)
            raise slow from None
        except httpx.HTTPError as error:
            lost = LabelStudioUnreachable(url=self._shown, problem=_told(error))
            raise (_Again(lost) if method in _SAFE_TO_REPEAT else lost) from None
        except httpx.InvalidURL as error:
            raise LabelStudioUnreachable(url=self._shown, problem=_told(error)) from None

    def _bounded(self, answer: httpx.Response, request: str) -> httpx.Response:
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                problem = f"its answer is larger than {MAX_ANSWER_BYTES:,} bytes"
                raise LabelStudioRefused(status=answer.status_code, request=request, problem=problem)
        kept = {name: answer.headers[name] for name in ("content-type", "location") if name in answer.headers}
        return httpx.Response(answer.status_code, headers=kept, content=bytes(content))

    def _read(self, answer: httpx.Response, method: str, path: str) -> Any:
        request, status = f"{method} {path}", answer.status_code
        if answer.is_success:
            return _json(answer, self._shown, request) if answer.content else None
        if answer.is_redirect:
            raise LabelStudioUnreachable(url=self._shown, problem=f"it redirects to {answer.headers.get('location')}")
        if status == httpx.codes.UNAUTHORIZED:
            raise BadToken(url=self._shown)
        problem = _problem(answer)
        if status == httpx.codes.FORBIDDEN:
            raise NotAllowed(request=request, problem=problem)
        if status == httpx.codes.NOT_FOUND:
            raise NoSuchPage(url=self._shown, request=request)
        refused: Exception = LabelStudioRefused(status=status, request=request, problem=problem)
        if status in _AWAY:
            refused = LabelStudioUnreachable(url=self._shown, problem=f"it answered {status} to {request}: {problem}")
        may_pass = status in _AWAY or status == httpx.codes.INTERNAL_SERVER_ERROR
        raise _Again(refused) if may_pass and method in _SAFE_TO_REPEAT else refused

    def _authorization(self, instead_of: str | None = None) -> str:
        """The header's value. A personal token is exchanged first; `instead_of` is an access token that was refused."""
        if not self.is_personal:
            return f"Token {self._api_key}"
        with self._lock:
            if self._access is None or f"Bearer {self._access}" == instead_of:
                answer = self._send("POST", "/api/token/refresh/", {"refresh": self._api_key}, None, self.timeout_s, "")
                found = self._read(answer, "POST", "/api/token/refresh/")
                self._access = str(found["access"])
            return f"Bearer {self._access}"


def _is_refresh_token(api_key: str) -> bool:
    """Whether a token is a JWT, as personal access tokens are; legacy ones are 40 hexadecimal digits."""
    parts = api_key.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return False
    return isinstance(claims, dict)


def _json(answer: httpx.Response, url: str, request: str) -> Any:
    try:
        return answer.json()
    except ValueError:
        kind = answer.headers.get("content-type", "no type")
        raise LabelStudioUnreachable(url=url, problem=f"{request} was answered with {kind}, not JSON") from None


def _problem(answer: httpx.Response) -> str:
    """What Label Studio says is wrong, in a few words: its `detail` and validation errors, never a page of HTML."""
    try:
        found = answer.json()
    except ValueError:
        return answer.reason_phrase
    if isinstance(found, dict):
        found = found.get("validation_errors") or found.get("detail") or found
    return (found if isinstance(found, str) else json.dumps(found))[:500]


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
