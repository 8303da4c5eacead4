"""The configured Label Studio: its origin, compared exactly, and the token that its files are read with."""

import asyncio
import base64
import json
import re
from collections.abc import Callable

import aiohttp
from yarl import URL

from backend.errors import AccessRefused, MissingSetting

# The token opens all of Label Studio's API, and a task's address is hostile: it goes with addresses of files only.
_FILES = re.compile(r"/(data|storage-data)/.*|/(tasks|projects)/\d+/(resolve|presign)/?", re.DOTALL)
_MAX_ANSWER_BYTES = 65_536

TokenProvider = Callable[[], str | None]


class LabelStudioOrigin:
    """Where Label Studio is, and who we are there: a legacy token, or a personal access token (PAT)."""

    def __init__(self, url: str, token: TokenProvider | None = None) -> None:
        self.url = URL(url.rstrip("/") or url)
        if self.url.scheme not in ("http", "https") or not self.url.host:
            raise MissingSetting(name="LABEL_STUDIO_URL", mend=f"{url!r} is no http address of Label Studio.")
        self._token = token
        self._access: str | None = None
        self._refreshing = asyncio.Lock()

    def owns(self, url: URL) -> bool:
        """Whether scheme, host and port are exactly Label Studio's."""
        return (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port)

    def address_of(self, path: str) -> str:
        """The full address of a path such as `/data/upload/1/cat.jpg`."""
        return f"{str(self.url).rstrip('/')}{path}"

    async def authorization(self, url: URL, session: aiohttp.ClientSession, rejected: str | None = None) -> str | None:
        """The Authorization header for a file of ours; None for every other address, or without a token.

        `rejected` is the header that Label Studio just refused: a PAT is then exchanged again, a legacy token is not.
        """
        token = self._token() if self._token and self._serves_files(url) else None
        if not token:
            return None
        kind = _jwt_kind(token)
        if kind != "refresh":
            return f"Bearer {token}" if kind else f"Token {token}"
        async with self._refreshing:
            if self._access is None or f"Bearer {self._access}" == rejected:
                self._access = await self._exchange(token, session)
            return f"Bearer {self._access}"

    def _serves_files(self, url: URL) -> bool:
        base = self.url.path.rstrip("/")
        path = url.path  # decoded: %2e%2e/ is ../ here
        if not self.owns(url) or not path.startswith(base) or ".." in path.split("/"):
            return False
        return _FILES.fullmatch(path, len(base)) is not None

    async def _exchange(self, pat: str, session: aiohttp.ClientSession) -> str:
        """A PAT is a refresh token: Label Studio gives a short-lived access token for it."""
        address = self.address_of("/api/token/refresh/")
        async with session.post(address, json={"refresh": pat}, allow_redirects=False) as response:
            body = await response.content.read(_MAX_ANSWER_BYTES) if response.status == 200 else b""
        try:
            return str(json.loads(body)["access"])
        except (ValueError, KeyError, TypeError):
            raise AccessRefused(
                uri=address, problem=f"the access token was not taken, HTTP {response.status}"
            ) from None


def _jwt_kind(token: str) -> str | None:
    """`refresh` or `access` for a JSON web token; None for a legacy token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return str(payload.get("token_type", "access"))
    except (ValueError, AttributeError):
        return None
