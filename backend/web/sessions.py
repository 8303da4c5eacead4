"""People's sessions on the pages: a signed cookie that says who is logged in and carries the token of our own forms.

Programs use basic auth, and so may browsers; a person logs in once instead. A session ends after half a day, with
/logout, and when username or password change. What changes something wants the token as well (`require_form`).
"""

import contextlib
import datetime as dt
import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from typing import Any

from flask import Flask, Response, make_response, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from werkzeug.exceptions import Forbidden

from backend.settings import settings
from backend.web import auth
from backend.web.origin import refuse_other_sites

LASTS = dt.timedelta(hours=12)
FIELD = "token"
_KEY_BYTES = 32
_FOR_LOGIN = ("style.css", "icon.svg")


class Cookies(SecureCookieSessionInterface):
    """Secure where the browser came by https, also through a proxy that says so."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's signature
        return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


def prepare(app: Flask) -> None:
    """Give the application sessions."""
    app.session_interface = Cookies()
    app.secret_key = signing_key()
    app.config.update(SESSION_COOKIE_NAME="nextbatch", SESSION_COOKIE_SAMESITE="Lax", PERMANENT_SESSION_LIFETIME=LASTS)


@lru_cache(maxsize=1)
def signing_key() -> bytes:
    """NEXTBATCH_SECRET_KEY, or 32 random bytes that are kept below the home, so that a restart logs nobody out."""
    given = settings().secret_key
    if given is not None:
        return hashlib.sha256(given.get_secret_value().encode()).digest()
    path = settings().home / "web.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"web.key.{os.getpid()}-{secrets.token_hex(4)}")
    own.touch(mode=0o600)
    own.write_bytes(secrets.token_bytes(_KEY_BYTES))
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(own)  # of several processes the first decides
    own.unlink()
    return path.read_bytes()


def require_person() -> Response | None:
    """A `before_request` of the pages: the login page, as a 401, unless a session or basic credentials are right."""
    if request.endpoint in ("dashboard.login", "dashboard.log_in"):
        return None
    if request.endpoint == "dashboard.static" and (request.view_args or {}).get("filename") in _FOR_LOGIN:
        return None
    refusal = auth.require_basic()
    if refusal is None or is_logged_in():
        return None
    if request.method == "GET" and "text/html" in request.headers.get("Accept", "") and not request.authorization:
        return _login_page(401, request.full_path.rstrip("?"))  # no WWW-Authenticate: the browser would ask instead
    return refusal


def login() -> Response:
    """The login page, for whoever comes to it by itself."""
    return _login_page(200, "")


def log_in() -> Any:
    """The login form: a session for whoever gives the right username and password."""
    refuse_other_sites(is_form=True)
    username, password = request.form.get("username", ""), request.form.get("password", "")
    onward = request.form.get("onward", "")
    if not auth.is_right(username, password):
        return _login_page(401, onward, is_wrong=True)
    session.clear()  # a session that somebody planted before is not this person's
    session.permanent = True
    session["user"], session["of"] = username, _fingerprint()
    is_ours = onward.startswith("/") and not onward.startswith(("//", "/\\"))
    return redirect(onward if is_ours else url_for("dashboard.project_list"), 303)


def log_out() -> Any:
    """The button: the session ends."""
    require_form()
    session.clear()
    return redirect(url_for("dashboard.login"), 303)


def is_person() -> bool:
    """Whether this session was begun on the login page, so that it can be ended."""
    return "user" in session and is_logged_in()


def is_logged_in() -> bool:
    """Whether this session was begun with the username and password that hold now."""
    return hmac.compare_digest(str(session.get("of", "")).encode(), _fingerprint().encode())


def actor() -> str:
    """Who acts, for the books."""
    given = request.authorization
    name = session.get("user") or (given.username if given is not None else None)
    return f"{name} (dashboard)" if name else "dashboard"


def token() -> str:
    """The token that a form of ours carries."""
    if FIELD not in session:
        session[FIELD] = secrets.token_urlsafe(24)
    return str(session[FIELD])


def require_form() -> None:
    """Forbidden unless a form of one of our own pages, shown in this session, was sent."""
    refuse_other_sites(is_form=True)
    held, given = str(session.get(FIELD, "")), request.form.get(FIELD, "")
    if not held or not hmac.compare_digest(held.encode(), given.encode()):
        raise Forbidden("This page belongs to a session that has ended. Go back, load it again, and repeat.")


def _fingerprint() -> str:
    """Changes with the credentials; says nothing of them without the key."""
    process = settings()
    password = process.password.get_secret_value() if process.password is not None else ""
    text = f"{len(process.username or '')}:{process.username}:{password}"
    return hmac.new(signing_key(), text.encode(), "sha256").hexdigest()


def _login_page(status: int, onward: str, *, is_wrong: bool = False) -> Response:
    return make_response(render_template("login.html", onward=onward, is_wrong=is_wrong), status)
