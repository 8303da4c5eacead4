"""Task addresses are hostile input: which hosts may be dialled, decided on the address that is then dialled."""

import ipaddress
import re
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from backend.errors import AddressForbidden, SourceUnsupported

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What Python 3.11 still calls global although it leads, or can lead, into a private network.
_FORBIDDEN_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; some clouds keep their metadata service in it
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64 for local use
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether the address is an ordinary one of the public internet."""
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in network for network in _FORBIDDEN_NETWORKS if network.version == address.version)


def check_address(address: str, host: str | None = None) -> None:
    """Refuse an address that is not public, or not an address: raises AddressForbidden, naming the host."""
    try:
        public = is_public(ipaddress.ip_address(address))
    except ValueError:
        public = False
    if not public:
        raise AddressForbidden(host=(host or address)[:80], address=address[:80])


class Guard:
    """Which hosts may be reached although their address is not public: `host` or `host:port`, compared exactly."""

    def __init__(self, allow_hosts: Collection[str] = ()) -> None:
        self._allowed = frozenset(host.lower().rstrip(".") for host in allow_hosts)

    def allows(self, host: str, port: int) -> bool:
        """Whether the user listed this host, or this port of it."""
        plain = host.lower().strip("[]").rstrip(".")
        bracketed = f"[{plain}]" if ":" in plain else plain
        return not self._allowed.isdisjoint({plain, bracketed, f"{bracketed}:{port}"})

    def check_url(self, url: URL) -> None:
        """Refuse other schemes, and literal addresses, which aiohttp dials without asking a resolver.

        Raises SourceUnsupported or AddressForbidden. Names are checked when they are resolved.
        """
        if url.scheme not in ("http", "https") or not url.host or url.port is None:
            raise SourceUnsupported(uri=f"{url.scheme}://{url.host or ''}"[:80], problem="not an http address")
        host = url.host.rstrip(".")
        # 127.1 and 2130706433 are addresses to the C library, and to aiohttp no names: only canonical ones pass.
        is_literal = ":" in host or re.fullmatch(r"[0-9.]+|0x[0-9a-f.x]*", host, re.IGNORECASE) is not None
        if is_literal and not self.allows(host, url.port):
            check_address(host)


class GuardedResolver(AbstractResolver):
    """Resolve a name and check what came back: the connector dials exactly these addresses, so rebinding gains nothing.

    One forbidden address among several refuses the name.
    """

    def __init__(self, guard: Guard, inner: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of the host; raises AddressForbidden, or OSError where the name is not known."""
        results = await self._inner.resolve(host, port, family)
        if not self._guard.allows(host, port):
            for result in results:
                check_address(result["host"], host)
        return results

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()
