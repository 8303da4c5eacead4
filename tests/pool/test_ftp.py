"""ftp through a real server: checked addresses, few connections that are kept, limits, and folders as pools."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import (
    AccessRefused,
    AddressForbidden,
    FetchFailed,
    FetchTimedOut,
    ItemMissing,
    ItemTooLarge,
    ItemUnreadable,
    SourceUnsupported,
)
from backend.pool.ftp import CONNECTIONS
from backend.pool.listing import Listing, list_pool
from backend.pool.refresh import refresh
from backend.pool.sources import SourceConfig, Sources
from backend.processes import free_port
from backend.settings import PoolSection
from tests.conftest import forget_process_state
from tests.pool.conftest import encode_all, fetch
from tests.services import ftp
from tests.services.ftp import FtpServer

FILES = {"a.jpg": b"picture", "below/ä b#?%20.jpg": b"odd", "below/deeper/c.png": b"deep", "notes.txt": b"no image"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "served"


@pytest.fixture
def server(root: Path, home: Path) -> Iterator[FtpServer]:
    assert home
    with ftp.running(root) as found:
        yield found


def open_to(server: FtpServer, **settings: object) -> SourceConfig:
    return SourceConfig(allow_hosts=(server.host_port,), **settings)  # type: ignore[arg-type]


def folder(server: FtpServer, path: str = "") -> Listing:
    listing = list_pool(PoolSection(source="ftp", path=f"{server.url}/{path}"), open_to(server))
    assert listing is not None
    return listing


def fetch_all(config: SourceConfig, uris: list[str]) -> list[object]:
    async def run() -> list[object]:
        async with Sources(config) as sources:
            return list(await asyncio.gather(*(sources.fetch(uri) for uri in uris), return_exceptions=True))

    return asyncio.run(run())


def test_a_file_is_read_by_its_path(server: FtpServer) -> None:
    assert fetch(open_to(server), f"{server.url}/a.jpg").data == b"picture"
    assert fetch(open_to(server), f"{server.url}/below/%C3%A4%20b%23%3F%2520.jpg").data == b"odd"
    assert server.logins == ["anonymous", "anonymous"]


def test_a_private_address_is_not_dialled_unless_it_is_listed(server: FtpServer) -> None:
    with pytest.raises(AddressForbidden):
        fetch(SourceConfig(), f"{server.url}/a.jpg")
    with pytest.raises(AddressForbidden):
        fetch(SourceConfig(), f"ftp://2130706433:{server.host_port.split(':')[1]}/a.jpg")

    assert server.commands == []


def test_the_login_goes_to_listed_hosts(server: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_FTP_USERNAME", ftp.USER)
    monkeypatch.setenv("NEXTBATCH_FTP_PASSWORD", ftp.PASSWORD)
    forget_process_state()

    assert fetch(open_to(server), f"{server.url}/a.jpg").data == b"picture"
    assert server.logins == [ftp.USER]


def test_a_wrong_login_is_an_access_problem(server: FtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTBATCH_FTP_USERNAME", ftp.USER)
    monkeypatch.setenv("NEXTBATCH_FTP_PASSWORD", "wrong")
    forget_process_state()

    with pytest.raises(AccessRefused, match="530"):
        fetch(open_to(server), f"{server.url}/a.jpg")


@pytest.mark.parametrize(
    ("path", "error"),
    [("none.jpg", ItemMissing), ("below", ItemUnreadable), ("../secret", ItemMissing),
     ("a%0D%0ADELE b.jpg", SourceUnsupported)],
)  # fmt: skip
def test_what_cannot_be_read_says_why(server: FtpServer, path: str, error: type[ItemUnreadable]) -> None:
    with pytest.raises(error):
        fetch(open_to(server, retries=0), f"{server.url}/{path}")

    assert server.count("DELE") == 0


def test_an_address_with_credentials_is_refused_and_not_repeated(server: FtpServer) -> None:
    with pytest.raises(SourceUnsupported) as refusal:
        fetch(open_to(server), f"ftp://me:secret@{server.host_port}/a.jpg")

    assert "secret" not in str(refusal.value)


def test_a_file_over_the_limit_is_refused(server: FtpServer) -> None:
    assert fetch(open_to(server, max_bytes=7), f"{server.url}/a.jpg").data == b"picture"
    with pytest.raises(ItemTooLarge):
        fetch(open_to(server, max_bytes=6), f"{server.url}/a.jpg")


def test_few_connections_serve_many_fetches(server: FtpServer) -> None:
    uris = [f"{server.url}/a.jpg", f"{server.url}/none.jpg"] * 50

    answers = fetch_all(open_to(server), uris)

    assert [getattr(answer, "data", None) for answer in answers[::2]] == [b"picture"] * 50
    assert all(isinstance(answer, ItemMissing) for answer in answers[1::2])
    assert len(server.logins) <= CONNECTIONS


def test_a_connection_that_the_server_dropped_is_opened_again(root: Path, home: Path) -> None:
    with ftp.running(root, timeout=1) as server:

        async def run() -> list[bytes]:
            async with Sources(open_to(server, retries=0)) as sources:
                first = await sources.fetch(f"{server.url}/a.jpg")
                await asyncio.to_thread(wait_until_dropped, server)
                return [first.data, (await sources.fetch(f"{server.url}/a.jpg")).data]

        assert asyncio.run(run()) == [b"picture", b"picture"]
        assert len(server.logins) == 2


def wait_until_dropped(server: FtpServer) -> None:
    assert server.closed.wait(20)


def test_without_epsv_and_mlsd_an_old_server_is_read_too(root: Path, home: Path) -> None:
    with ftp.running(root, lacks=("EPSV", "MLSD", "MLST")) as server:
        uris = [item.uri for item in folder(server)]

        assert sorted(fetch(open_to(server), uri).data for uri in uris) == [b"deep", b"odd", b"picture"]
        assert server.count("PASV") > 0


def test_a_server_that_names_another_host_is_not_followed(root: Path, home: Path) -> None:
    with ftp.running(root, lacks=("EPSV",), masquerade_address="192.0.2.1") as server:
        assert fetch(open_to(server), f"{server.url}/a.jpg").data == b"picture"


def test_a_server_that_never_ends_its_greeting_meets_the_limit(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=chatter, args=(listening,), daemon=True).start()
        host_port = f"127.0.0.1:{listening.getsockname()[1]}"

        with pytest.raises((FetchFailed, FetchTimedOut)):
            fetch(SourceConfig(allow_hosts=(host_port,), retries=0, timeout_s=5), f"ftp://{host_port}/a.jpg")


def chatter(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        try:
            while True:
                connection.sendall(b"220-welcome\r\n" * 1000)
        except OSError:
            return


def test_silence_meets_the_deadline_and_nobody_there_is_said(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host_port = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FetchTimedOut):
            fetch(SourceConfig(allow_hosts=(host_port,), timeout_s=0.3), f"ftp://{host_port}/a.jpg")
    with pytest.raises(FetchFailed, match="no connection to 127"):
        fetch(SourceConfig(allow_hosts=("127.0.0.1",), retries=0), f"ftp://127.0.0.1:{free_port()}/a.jpg")


def test_a_folder_is_a_pool_and_unchanged_files_are_not_fetched(server: FtpServer, root: Path, pool_id: int) -> None:
    listing = folder(server)
    refresh(pool_id, listing)
    encode_all(pool_id, open_to(server))
    (root / "a.jpg").write_bytes(b"another picture")
    os.utime(root / "a.jpg", (10**9, 10**9))
    (root / "below/deeper/c.png").unlink()
    server.commands.clear()

    seen = refresh(pool_id, folder(server))

    assert listing.skipped.lines() == [f"left out 1: not named as an image ({server.url}/notes.txt)"]
    assert (seen.changed, seen.gone, seen.unchanged) == (1, 1, 1)
    assert server.count("RETR") == 0
    assert encode_all(pool_id, open_to(server)) == [f"{server.url}/a.jpg"]


def test_a_folder_that_is_not_there_takes_nothing_away(server: FtpServer, pool_id: int) -> None:
    refresh(pool_id, folder(server))

    with pytest.raises(ItemMissing):
        refresh(pool_id, folder(server, "none"))
