"""This side: database, folder, worker, Triton, and the web process as others see it."""

import datetime as dt
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from backend import migrations
from backend.connections import certificates
from backend.database import Worker, engine, now, reading
from backend.doctor.finding import Finding, fault, note, ok, told
from backend.doctor.site import Site
from backend.rounds.queue import prepare_database
from backend.scoring.servers import addresses, problem_of
from backend.studio.connect import SECRET_HEADER

FREE_BYTES = 2 * 2**30
HEARTBEAT = dt.timedelta(seconds=15)
TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 5


def database(site: Site) -> Iterator[Finding]:
    """Looking changes nothing: SQLite would make a missing file."""
    why, migrate = "Every command and process needs its tables.", "Run: nextbatch migrate"
    try:
        url = sa.engine.make_url(site.process.database)
    except sa.exc.ArgumentError:
        yield fault("NEXTBATCH_DATABASE_URL is no database's address", why, "Correct it: postgresql://user@host/name")
        return
    shown = url.render_as_string(hide_password=True)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database and not Path(url.database).exists():
        yield fault(f"{shown} is not there", why, migrate, prepare_database)
        return
    # The processes' own engine waits for a lost Postgres for as long as the network lets it.
    probe = engine() if is_sqlite else sa.create_engine(url, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        with probe.connect().execution_options(readonly=True) as connection:
            has = set(MigrationContext.configure(connection).get_current_heads())
            has_engine = sa.inspect(connection).has_table("workflow_status", None if is_sqlite else "dbos")
    except sa.exc.SQLAlchemyError as error:
        yield fault(f"{shown} cannot be used: {told(error)}", why, "Start it, or correct NEXTBATCH_DATABASE_URL.")
        return
    finally:
        if not is_sqlite:
            probe.dispose()
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    if has - {one.revision for one in script.walk_revisions()}:
        yield fault(f"{shown} was made by a newer nextbatch", why, "Install that version of nextbatch.")
    elif has != set(script.get_heads()) or not has_engine:
        yield fault(f"{shown} has not all of this version's tables", why, migrate, prepare_database)
    else:
        yield ok(shown)


def storage(site: Site) -> Iterator[Finding]:
    home = site.process.home
    why = "Embeddings, encoders and heads are kept there."
    if not home.is_dir():
        yield fault(f"{home} is not there", why, repair=lambda: home.mkdir(parents=True, exist_ok=True))
        return
    probe = home / f".doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"x" * 4096)
    except OSError as error:
        mend = "Give this user the folder, or set NEXTBATCH_HOME to another one."
        yield fault(f"{home} cannot be written: {error.strerror}", why, mend)
        return
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES:
        yield fault(f"{free / 2**30:.1f} GiB are left in {home}", f"{why} They grow.", "Free some space.")
    else:
        yield ok(f"{home}, {free / 2**30:.0f} GiB free")


def worker(_site: Site) -> Iterator[Finding]:
    with reading() as session:
        seen = list(session.scalars(sa.select(Worker.seen_at).order_by(Worker.seen_at.desc())))
    beating = [one for one in seen if one > now() - HEARTBEAT]
    if beating:
        yield ok(f"{len(beating)} alive")
    else:
        last = f"the last one {_ago(now() - seen[0])} ago" if seen else "none ever started here"
        why = "Rounds wait: nothing is learned, selected or published."
        yield fault(f"no worker gave a sign of life, {last}", why, "Run: nextbatch serve (or: nextbatch worker)")


def triton(site: Site) -> Iterator[Finding]:
    urls = addresses(site.process.triton_url or "")
    if not urls:
        yield ok("embedded, or the encoder runs in the worker (TRITON_URL is not set)")
        return
    problems = {url: problem for url in urls if (problem := problem_of(url, TIMEOUT_S))}
    mend = "Start it, or correct TRITON_URL (gRPC's host:port)."
    for url in urls:
        if url not in problems:
            yield ok(url)
        elif len(problems) == len(urls):
            yield fault(f"{url}: {problems[url]}", "Nothing new is encoded, so rounds wait.", mend)
        else:
            yield note(f"{url}: {problems[url]}", "The other servers encode alone.", mend)


def web(site: Site) -> Iterator[Finding]:
    """The same call that Label Studio makes before nearly every other."""
    url = site.url
    why = "Label Studio's calls end here: predictions, and the events that start rounds."
    start = (
        "Run: nextbatch serve, or correct NEXTBATCH_URL. (Where only Label Studio can reach it, see its check below.)"
    )
    try:
        answer = httpx.get(f"{url}/health", auth=site.login, timeout=TIMEOUT_S, trust_env=False, verify=certificates())
        status = answer.json().get("status") if answer.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield fault(f"{url} does not answer: {told(error)}", why, start)
        return
    except (ValueError, AttributeError):
        status = None
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        mend = "Start web with the same NEXTBATCH_USERNAME and NEXTBATCH_PASSWORD as this command."
        yield fault(f"web at {url} has another username or password", why, mend)
    elif status != "UP":
        yield fault(f"{url} is answered by something else (HTTP {answer.status_code})", why, start)
    else:
        yield ok(url)


def webhook_secret(site: Site) -> Iterator[Finding]:
    """An empty call changes nothing: whoever lets it in then finds no event in it."""
    mend = "Set NEXTBATCH_WEBHOOK_SECRET, restart web, then run: nextbatch doctor --fix"
    if site.secret is None and site.login is not None:
        what = "web asks webhooks for a password, and there is no secret for them to carry"
        yield fault(what, "Every event is refused, so no label starts a round.", mend)
        return
    if site.secret is None:
        yield note("webhooks have no secret", "Whoever reaches web can make it start rounds.", mend)
        return
    same = "Start web and this command with the same NEXTBATCH_WEBHOOK_SECRET."
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=certificates()) as client:
        bare, ours = (
            client.post(f"{site.url}/webhook", json={}, headers=headers).status_code
            for headers in ({}, {SECRET_HEADER: site.secret})
        )
    if ours == httpx.codes.UNAUTHORIZED:
        yield fault("web refuses our secret", "Every event is refused, so no label starts a round.", same)
    elif bare != httpx.codes.UNAUTHORIZED:
        what = f"web took a call without the secret (HTTP {bare})"
        yield fault(what, "Whoever reaches web can make it start rounds.", same)
    else:
        yield ok("web refuses calls without it")


def _ago(since: dt.timedelta) -> str:
    seconds = since.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{since.days} d"
