"""A person who labels, simulated through Label Studio's own HTTP API: take the next task, submit its true label."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from backend.connections import certificates

TRANSIENT_STATUS = frozenset({500, 502, 503, 504})


@dataclass(frozen=True)
class Drawn:
    """A task that `/next` gave."""

    task_id: int
    data: Mapping[str, Any]


class Annotator:
    """One logged-in user (by API token) of one project."""

    def __init__(self, url: str, token: str, project_id: int) -> None:
        self.project_id = project_id
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Token {token}"}, timeout=30, verify=certificates()
        )

    def draw(self) -> Drawn | None:
        """The task that Label Studio puts in front of this person; None when it has no more."""
        answer = self._call("GET", f"/api/projects/{self.project_id}/next")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        task = answer.json()
        return Drawn(int(task["id"]), task["data"])

    def submit(self, task_id: int, result: list[dict[str, Any]], seconds: float = 1.0) -> int:
        """Submit an annotation; returns its id."""
        answer = self._call("POST", f"/api/tasks/{task_id}/annotations/", {"result": result, "lead_time": seconds})
        answer.raise_for_status()
        return int(answer.json()["id"])

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """One request, once more after a broken connection (a GET) or a server that was just restarting."""
        for attempt in range(5):
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError:
                if attempt == 4 or method != "GET":
                    raise
            else:
                if answer.status_code not in TRANSIENT_STATUS or attempt == 4:
                    return answer
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")
