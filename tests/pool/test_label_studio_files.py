"""Uploaded files of a running Label Studio, read with the token of a person, and the token stays with it."""

import base64
import json
from dataclasses import dataclass

import httpx
import pytest
from aiohttp import web
from yarl import URL

from backend.errors import AccessRefused, AddressForbidden, ItemUnreadable
from backend.pool.origin import LabelStudioOrigin
from backend.pool.sources import SourceConfig
from backend.studio.server import LabelStudioServer
from tests.pool.conftest import Web, fetch

PICTURE = b"\x89PNG\r\n\x1a\n a picture, as far as Label Studio looks"


@dataclass(frozen=True)
class Upload:
    """A file in Label Studio: its path, as it stands in the task's data."""

    path: str


@pytest.fixture
def upload(server: LabelStudioServer, project_id: int) -> Upload:
    with _api(server) as api:
        files = {"file": ("cat picture.png", PICTURE, "image/png")}
        api.post(f"/api/projects/{project_id}/import", files=files).raise_for_status()
        tasks = api.get("/api/tasks", params={"project": project_id, "fields": "all"}).raise_for_status().json()
    (path,) = tasks["tasks"][0]["data"].values()
    return Upload(path)


def _api(server: LabelStudioServer) -> httpx.Client:
    headers = {"Authorization": f"Token {server.account.token}"}
    return httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30)


def reading(server: LabelStudioServer, token: str | None) -> SourceConfig:
    return SourceConfig(label_studio_url=server.url, label_studio_token=lambda: token)


def test_an_upload_is_read_with_a_legacy_token(server: LabelStudioServer, upload: Upload) -> None:
    config = reading(server, server.account.token)

    assert upload.path.startswith("/data/upload/")
    assert fetch(config, upload.path).data == PICTURE
    assert fetch(config, f"{server.url}{upload.path}").data == PICTURE


def test_an_upload_is_read_with_a_personal_token(
    server: LabelStudioServer, upload: Upload, personal_token: str
) -> None:
    assert fetch(reading(server, personal_token), upload.path).data == PICTURE


def test_an_access_token_that_was_refused_is_exchanged_again(
    server: LabelStudioServer, upload: Upload, personal_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = LabelStudioOrigin.__init__

    def with_a_stale_token(self: LabelStudioOrigin, *arguments: object) -> None:
        started(self, *arguments)  # type: ignore[arg-type]
        self._access = "stale"

    monkeypatch.setattr(LabelStudioOrigin, "__init__", with_a_stale_token)

    assert fetch(reading(server, personal_token), upload.path).data == PICTURE


@pytest.mark.parametrize("token", [None, "", "0" * 40])
def test_without_a_valid_token_an_upload_is_refused(
    server: LabelStudioServer, upload: Upload, token: str | None
) -> None:
    with pytest.raises(AccessRefused, match="credentials"):
        fetch(reading(server, token), upload.path)


def test_a_forged_personal_token_is_refused(server: LabelStudioServer, upload: Upload) -> None:
    payload = (
        base64.urlsafe_b64encode(json.dumps({"token_type": "refresh", "exp": 2**31}).encode()).decode().rstrip("=")
    )

    with pytest.raises(AccessRefused):
        fetch(reading(server, f"e30.{payload}.c2lnbmF0dXJl"), upload.path)


@pytest.mark.parametrize(
    "path", ["/api/current-user/whoami", "/data/../api/current-user/whoami", "/data/%2e%2e/api/projects"]
)
def test_the_token_does_not_open_the_api(server: LabelStudioServer, path: str) -> None:
    with pytest.raises(ItemUnreadable):
        fetch(reading(server, server.account.token), f"{server.url}{path}")


def test_another_port_of_the_same_host_is_not_trusted(server: LabelStudioServer, web_servers: Web) -> None:
    neighbour = web_servers.serve(_picture)

    with pytest.raises(AddressForbidden):
        fetch(reading(server, server.account.token), f"{neighbour.url}data/upload/1/cat.jpg")

    assert neighbour.requests == []


def test_a_redirect_into_label_studio_carries_no_token(
    server: LabelStudioServer, upload: Upload, web_servers: Web
) -> None:
    async def into_label_studio(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{server.url}{upload.path}"})

    stranger = web_servers.serve(into_label_studio)
    config = SourceConfig(
        allow_hosts=(stranger.host_port,),
        label_studio_url=server.url,
        label_studio_token=lambda: server.account.token,
    )

    with pytest.raises(AccessRefused):
        fetch(config, stranger.url)


def test_a_redirect_out_of_the_origin_leaves_the_token_behind(web_servers: Web) -> None:
    storage = web_servers.serve(_picture)

    async def to_storage(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=303, headers={"Location": str(storage.url)})

    origin = web_servers.serve(to_storage)
    config = SourceConfig(
        allow_hosts=(storage.host_port,), label_studio_url=str(origin.url), label_studio_token=lambda: "0" * 40
    )

    assert fetch(config, "/data/upload/1/cat.jpg").data == b"picture"
    assert origin.requests[0].headers["Authorization"] == "Token " + "0" * 40
    assert "Authorization" not in storage.requests[0].headers


@pytest.mark.parametrize(
    ("origin", "url", "is_ours"),
    [
        ("http://studio:8080", "http://studio:8080/data/upload/1", True),
        ("http://studio:8080/", "http://STUDIO:8080/", True),
        ("http://studio", "http://studio:80/", True),
        ("https://studio", "https://studio:443/", True),
        ("http://studio:8080", "https://studio:8080/", False),
        ("http://studio:8080", "http://studio:8081/", False),
        ("http://studio:8080", "http://studio:8080.evil/", False),
        ("http://studio:8080", "http://studio:8080@evil/", False),
        ("http://studio:8080", "http://studio.evil:8080/", False),
    ],
)
def test_the_origin_is_compared_exactly(origin: str, url: str, is_ours: bool) -> None:
    try:
        target = URL(url)
        target.port  # noqa: B018
    except ValueError:
        assert not is_ours
        return

    assert LabelStudioOrigin(origin).owns(target) is is_ours


async def _picture(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"picture")
