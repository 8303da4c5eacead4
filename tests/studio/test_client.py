"""The connection to Label Studio: both kinds of token, and refusals that say what to do."""

import subprocess
import sys
import threading
import time

import pytest

from backend.errors import BadToken, LabelStudioRefused, LabelStudioUnreachable, NoSuchPage, SlowLabelStudio
from backend.processes import free_port
from backend.studio.client import Studio
from backend.studio.server import LabelStudioServer
from tests.services.label_studio import add_tasks


def test_a_personal_access_token_works(server: LabelStudioServer, personal_token: str) -> None:
    with Studio(server.url, personal_token) as studio:
        assert studio.get("/api/current-user/whoami")["email"] == server.account.username


def test_an_access_token_that_expired_is_renewed(server: LabelStudioServer, personal_token: str) -> None:
    with Studio(server.url, personal_token) as studio:
        studio.get("/api/current-user/whoami")
        studio._access = "expired.access.token"

        assert studio.get("/api/current-user/whoami")["email"] == server.account.username


@pytest.mark.parametrize("token", ["0" * 40, "", "e30.e30.e30", "not a token", "tökén"])
def test_a_wrong_token_says_where_to_get_one(server: LabelStudioServer, token: str) -> None:
    with pytest.raises(BadToken, match="LABEL_STUDIO_API_KEY"), Studio(server.url, token) as studio:
        studio.get("/api/current-user/whoami")


def test_a_closed_port_is_unreachable_after_a_few_attempts() -> None:
    started = time.monotonic()

    with (
        Studio(f"http://127.0.0.1:{free_port()}", "0" * 40) as studio,
        pytest.raises(LabelStudioUnreachable, match="LABEL_STUDIO_URL"),
    ):
        studio.get("/api/version")

    assert time.monotonic() - started < 10


def test_a_password_in_the_address_is_not_told() -> None:
    with (
        Studio(f"http://user:staple@127.0.0.1:{free_port()}/", "0" * 40) as studio,
        pytest.raises(LabelStudioUnreachable) as caught,
    ):
        studio.get("/api/version")

    assert "staple" not in f"{caught.value} {studio!r}"


def test_a_server_that_comes_back_meanwhile_is_asked_again(server: LabelStudioServer) -> None:
    port = free_port()
    relay = threading.Timer(0.3, lambda: relayed.append(_relay(port, server.port)))
    relayed: list[subprocess.Popen[bytes]] = []
    relay.start()
    try:
        with Studio(f"http://127.0.0.1:{port}", server.account.token) as studio:
            assert studio.get("/api/current-user/whoami")["email"] == server.account.username
    finally:
        relay.join()
        relayed[0].kill()
        relayed[0].wait()


def _relay(port: int, target: int) -> "subprocess.Popen[bytes]":
    """A process that passes connections on to Label Studio, so that its port opens late."""
    script = f"""
import asyncio

async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", {target})
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

async def main():
    async with await asyncio.start_server(relay, "127.0.0.1", {port}) as listening:
        await listening.serve_forever()

asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", script])


def test_what_is_not_there_is_named(studio: Studio) -> None:
    with pytest.raises(NoSuchPage, match="/api/projects/999999/"):
        studio.get("/api/projects/999999/")


def test_a_refusal_tells_what_label_studio_says(studio: Studio) -> None:
    with pytest.raises(LabelStudioRefused, match="at least 3 characters"):
        studio.post("/api/projects/", {"title": "x"})


def test_an_answer_that_takes_too_long_is_given_up(studio: Studio, project_id: int) -> None:
    add_tasks(studio, project_id, 200)

    with pytest.raises(SlowLabelStudio):
        studio.get("/api/tasks/", {"project": project_id, "fields": "all", "page_size": 200}, timeout_s=0.01)


def test_another_kind_of_server_is_not_taken_for_label_studio(server: LabelStudioServer) -> None:
    with (
        Studio(f"{server.url}/static", server.account.token) as studio,
        pytest.raises((LabelStudioUnreachable, NoSuchPage)),
    ):
        studio.get("/api/version")


def test_a_token_is_never_shown(server: LabelStudioServer) -> None:
    with Studio(server.url, server.account.token) as studio:
        assert server.account.token not in repr(studio)
        assert server.account.token not in repr(server.account)
