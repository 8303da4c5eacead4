"""Which addresses may be dialled, and that what was checked is what is dialled."""

import ipaddress
import socket

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from backend.errors import AddressForbidden, FetchFailed, ItemUnreadable, SourceUnsupported
from backend.pool.guard import Guard, check_address
from backend.pool.sources import SourceConfig
from tests.pool.conftest import Web, fetch

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "192.0.2.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::808:808", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fe80::1", "fe80::1%eth0",
    "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "3fff::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1"]


class Names(AbstractResolver):
    """A name server of our own: each look-up of a name takes its next answer, the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        found = self.answers[host]
        addresses = found.pop(0) if len(found) > 1 else found[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None: ...


async def picture(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"picture")


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressForbidden, match="allow_hosts"):
        check_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    check_address(address)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_inside_ipv6(inner: ipaddress.IPv4Address) -> None:
    for prefix in ("::", "::ffff:", "64:ff9b::", "64:ff9b:1::"):
        with pytest.raises(AddressForbidden):
            check_address(f"{prefix}{inner}")


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_passes_that_python_does_not_call_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast:
        with pytest.raises(AddressForbidden):
            check_address(str(address))


@given(st.text(max_size=200).filter(lambda text: not text.replace(".", "").isdigit() and ":" not in text))
def test_what_is_no_address_is_refused_shortly(text: str) -> None:
    with pytest.raises(AddressForbidden) as caught:
        check_address(text)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:7f00:1]",
     "[fe80::1%25eth0]", "localhost", "LOCALHOST", "localhost.", "%6c%6fcalhost", "①②⑦.⓪.⓪.①", "0", "0.0.0.0"],
)  # fmt: skip
def test_no_way_of_writing_loopback_reaches_it(web_servers: Web, host: str) -> None:
    server = web_servers.serve(picture)

    with pytest.raises(ItemUnreadable) as caught:
        fetch(SourceConfig(retries=0, timeout_s=10), f"http://{host}:{server.url.port}/")

    assert caught.type in (AddressForbidden, SourceUnsupported, FetchFailed)  # or a name that nobody knows
    assert server.requests == []


def test_a_listed_host_may_have_a_private_address_and_is_dialled_there(web_servers: Web) -> None:
    server = web_servers.serve(picture)
    names = Names(photos_internal=[["127.0.0.1"]])

    blob = fetch(SourceConfig(allow_hosts=("photos.internal",)), f"http://photos.internal:{server.url.port}/a", names)

    assert blob.data == b"picture"
    assert server.requests[0].headers["Host"] == f"photos.internal:{server.url.port}"


def test_a_listed_port_opens_no_other_port(web_servers: Web) -> None:
    open_server, closed_server = web_servers.serve(picture), web_servers.serve(picture)
    config = SourceConfig(allow_hosts=(open_server.host_port,))

    assert fetch(config, open_server.url).data == b"picture"
    with pytest.raises(AddressForbidden):
        fetch(config, closed_server.url)
    assert closed_server.requests == []


def test_a_name_that_rebinds_to_loopback_is_refused_before_it_is_dialled(web_servers: Web) -> None:
    server = web_servers.serve(picture)
    # A public address that absorbs what nobody wants (AS112, RFC 7535); here it may just as well be unreachable.
    names = Names(rebind_example=[["192.31.196.1"], ["127.0.0.1"]])

    with pytest.raises(AddressForbidden):
        fetch(SourceConfig(timeout_s=6, retries=1), f"http://rebind.example:{server.url.port}/", names)

    assert names.asked == ["rebind.example"] * 2
    assert server.requests == []


def test_one_private_address_among_public_ones_refuses_the_name(web_servers: Web) -> None:
    server = web_servers.serve(picture)
    names = Names(mixed_example=[["93.184.216.34", "127.0.0.1"]])

    with pytest.raises(AddressForbidden, match=r"mixed\.example: 127\.0\.0\.1"):
        fetch(SourceConfig(), f"http://mixed.example:{server.url.port}/", names)

    assert server.requests == []


@pytest.mark.parametrize(
    ("allowed", "host", "port", "is_allowed"),
    [
        ("photos.internal", "PHOTOS.internal.", 80, True),
        ("photos.internal", "evil-photos.internal", 80, False),
        ("photos.internal", "photos.internal.evil", 80, False),
        ("photos.internal:8080", "photos.internal", 8080, True),
        ("photos.internal:8080", "photos.internal", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]:81", "::1", 81, True),
        ("[::1]:81", "::1", 80, False),
    ],
)
def test_hosts_are_compared_exactly(allowed: str, host: str, port: int, is_allowed: bool) -> None:
    assert Guard([allowed]).allows(host, port) is is_allowed


@pytest.mark.parametrize(
    "address", ["ftp://example.org/", "gopher://example.org:70/", "http:///x", "file:///etc/passwd"]
)
def test_only_http_addresses_pass(address: str) -> None:
    with pytest.raises(SourceUnsupported):
        Guard().check_url(URL(address))
