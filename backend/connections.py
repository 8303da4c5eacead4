"""HTTP to the services beside us: certificates are read once a process, and whether a service is up is asked here."""

import ssl
from functools import cache

import httpx


@cache
def certificates() -> ssl.SSLContext:
    """What httpx would read for each client anew, at 50 ms of CPU."""
    return httpx.create_ssl_context(trust_env=False)


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET succeeds. Proxies of the environment are not asked."""
    try:
        return httpx.get(url, timeout=timeout_s, trust_env=False, verify=certificates()).is_success
    except httpx.HTTPError:
        return False
