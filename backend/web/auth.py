"""Who may call: basic auth for the ML backend's endpoints, a shared secret for webhooks, tokens for the API.

Secrets are compared in constant time.
"""

import hmac

from flask import Response, request

from backend import metrics, tokens
from backend.database import reading
from backend.settings import settings

SECRET_HEADER = "X-Nextbatch-Secret"  # noqa: S105 - the header's name, not its value


ANYBODY = "anybody"
"""Who calls the API while it asks for no credentials."""


def require_basic() -> Response | None:
    """A `before_request`: 401 unless the credentials are right, or none are configured."""
    return None if not _basic_is_configured() or _basic_is_right() else _refusal()


def refuse_wrong_basic() -> Response | None:
    """For /health: whoever sends no credentials may ask, whoever sends wrong ones is told so.

    Label Studio checks /health first and shows a clear message for 401; probes send no credentials.
    """
    return _refusal() if _basic_is_configured() and request.authorization and not _basic_is_right() else None


def require_webhook_secret() -> Response | None:
    """401 unless the secret header or the basic credentials are right, or neither is configured.

    Label Studio's own calls ("Start training") carry the backend's basic auth but no header; a webhook that we
    registered carries the header but no basic auth. Either will do.
    """
    secret = settings().webhook_secret
    if secret is None and not _basic_is_configured():
        return None
    given = request.headers.get(SECRET_HEADER)
    # WSGI hands header bytes over as Latin-1 text
    if secret is not None and given is not None and _equal(given.encode("latin-1"), secret.get_secret_value()):
        return None
    if _basic_is_configured() and _basic_is_right():
        return None
    metrics.events.labels("unauthorized").inc()
    return _refusal()


def caller(scope: tokens.Scope) -> str | Response:
    """Who calls the API with at least this scope, or why nobody may: 401 without credentials, 403 below the scope.

    The basic credentials may do everything. Without them and without any token, everybody may.
    """
    given = request.authorization
    if given is not None and given.type == "bearer":
        with reading() as session:
            token = tokens.find(session, given.token or "")
        if token is None:
            return _refusal("This token opens nothing: it is unknown, revoked or expired.")
        if not tokens.allows(token.scope, scope):
            mend = f"nextbatch tokens create NAME --scope {scope}"
            text = f"The token {token.name!r} may {token.scope}, and this takes {scope}. Make another: {mend}\n"
            return Response(text, status=403, mimetype="text/plain")
        return f"token:{token.id}"
    if _basic_is_configured():
        return "basic" if _basic_is_right() else _refusal()
    with reading() as session:
        return _refusal() if tokens.exist(session) else ANYBODY


def _basic_is_configured() -> bool:
    return settings().username is not None or settings().password is not None


def is_right(username: str, password: str) -> bool:
    """Whether these are the configured username and password."""
    process = settings()
    expected = process.password.get_secret_value() if process.password is not None else ""
    name_is_right = _equal(username.encode(), process.username or "")
    return _equal(password.encode(), expected) and name_is_right  # both are always compared


def _basic_is_right() -> bool:
    given = request.authorization
    return given is not None and given.type == "basic" and is_right(given.username or "", given.password or "")


def _equal(given: bytes, expected: str) -> bool:
    return hmac.compare_digest(given, expected.encode())


def _refusal(text: str = "Give this backend's username and password (or the webhook's secret header).") -> Response:
    return Response(
        f"{text}\n",
        status="401 Credentials missing or wrong",
        headers={"WWW-Authenticate": 'Basic realm="nextbatch", charset="UTF-8"'},
        mimetype="text/plain",
    )
