"""Check a live set-up in both directions: what is wrong, why it matters, and what mends it."""

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import sqlalchemy as sa

from backend.database import Batch, Item, Project, Round, Worker, now, project_named, reading
from backend.errors import NextbatchError
from backend.rounds.queue import prepare_database
from backend.rounds.source import open_studio
from backend.settings import Settings, settings
from backend.studio import connect
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, config_hash

FREE_BYTES = 2 * 2**30
CLOCK_S = 30
HEARTBEAT = dt.timedelta(seconds=15)
FAILED_SHARE = 0.05
SAMPLING = {"reorder": "Uncertainty sampling", "create": "Sequential sampling"}
PRIVATE = (
    "For a loopback or private address set ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false in Label Studio"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. `mend` is empty where nothing is wrong; `is_mended` says that --fix did it."""

    check: str
    is_fault: bool
    what: str
    why: str = ""
    mend: str = ""
    is_mended: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.is_mended:
            return f"mended  {self.check}: {self.what}"
        if not self.is_fault:
            return f"ok      {self.check}: {self.what}"
        return f"FAULT   {self.check}: {self.what}\n        why:  {self.why}\n        mend: {self.mend}"


def examine(name: str | None = None, fix: bool = False) -> list[Finding]:
    """All checks, of one project or of all. A check that fails by itself is a finding, and the others go on."""
    found = [*_guard("database", _database), *_guard("storage", _storage)]
    if found[0].is_fault:
        return found
    found += _guard("worker", _worker)
    found += _guard("triton", _triton)
    found += _guard("web", _web)
    with reading() as session:
        projects = [project_named(session, name)] if name else list(session.scalars(sa.select(Project)))
    found += _guard("Label Studio", _label_studio)
    if found[-1].is_fault:
        return found
    for project in projects:
        with open_studio() as studio:
            for check in (_project, _backend, _model_version, _sampling, _webhook, _automatic_webhooks):
                title = f"{project.name}: {check.__name__.strip('_').replace('_', ' ')}"
                found += _guard(title, check, studio, project, fix)
        found += _guard(f"{project.name}: items", _items, project)
        found += _guard(f"{project.name}: rounds", _rounds, project)
    return found


def _guard(title: str, check: Callable[..., Iterator[Finding]], *arguments: object) -> list[Finding]:
    try:
        return [
            Finding(title, one.is_fault, one.what, one.why, one.mend, one.is_mended) for one in check(*arguments)
        ] or [Finding(title, False, "nothing to check")]
    except (NextbatchError, httpx.HTTPError, sa.exc.SQLAlchemyError, OSError) as error:
        return [_fault(str(error).splitlines()[0], "It could not be checked.", "See the message.", title)]


def _ok(what: str) -> Finding:
    return Finding("", False, what)


def _fault(what: str, why: str, mend: str, check: str = "") -> Finding:
    return Finding(check, True, what, why, mend)


def _mended(what: str) -> Finding:
    return Finding("", False, what, is_mended=True)


def _database() -> Iterator[Finding]:
    prepare_database()
    yield _ok(sa.engine.make_url(settings().database).render_as_string(hide_password=True))


def _storage() -> Iterator[Finding]:
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    probe = home / ".doctor"
    probe.write_text("")
    probe.unlink()
    free = shutil.disk_usage(home).free
    if free < FREE_BYTES:
        yield _fault(
            f"{free / 2**30:.1f} GiB are left in {home}", "Embeddings and the database grow.", "Free some space."
        )
    else:
        yield _ok(f"{home}, {free / 2**30:.0f} GiB free")


def _worker() -> Iterator[Finding]:
    with reading() as session:
        alive = session.scalar(sa.select(sa.func.count()).select_from(Worker).where(Worker.seen_at > now() - HEARTBEAT))
    if alive:
        yield _ok(f"{alive} alive")
    else:
        yield _fault("no worker gave a sign of life", "Rounds wait.", "Run: nextbatch serve (or: nextbatch worker)")


def _triton() -> Iterator[Finding]:
    url = settings().triton_url
    if url is None:
        yield _ok("embedded, or the encoder runs in the worker (TRITON_URL is not set)")
        return
    from tritonclient import grpc

    try:
        is_ready = grpc.InferenceServerClient(url.removeprefix("grpc://")).is_server_ready(client_timeout=3)
    except Exception as error:
        is_ready, reason = False, str(error)
    else:
        reason = "it is not ready"
    if is_ready:
        yield _ok(url)
    else:
        yield _fault(
            f"{url}: {reason}", "Nothing new is encoded.", "Start it, or correct TRITON_URL (gRPC's host:port)."
        )


def _web() -> Iterator[Finding]:
    url = _url(settings())
    if url is None:
        yield _fault(
            "NEXTBATCH_URL is not set", "Label Studio cannot be told where to call.", "Set it to web's address as "
            "Label Studio sees it.",
        )  # fmt: skip
        return
    try:
        answer = httpx.get(f"{url}/health", timeout=3, trust_env=False)
        is_up, reason = answer.is_success, f"HTTP {answer.status_code}"
    except httpx.HTTPError as error:
        is_up, reason = False, str(error)
    if not is_up:
        yield _fault(
            f"{url} does not answer: {reason}", "Predictions and webhooks fail.", "Run: nextbatch serve, or correct "
            "NEXTBATCH_URL (an address that only Label Studio can reach may look like this from here).",
        )  # fmt: skip
        return
    if settings().webhook_secret is None:
        yield _fault(
            "webhooks have no secret", "Anybody who reaches web can start rounds.", "Set NEXTBATCH_WEBHOOK_SECRET, "
            "restart web, then run: nextbatch doctor --fix",
        )  # fmt: skip
        return
    refused = httpx.post(f"{url}/webhook", json={}, timeout=3, trust_env=False).status_code
    if refused in (401, 403):
        yield _ok(f"{url}, and webhooks without the secret are refused")
    else:
        yield _fault(
            f"{url}/webhook took a call without the secret (HTTP {refused})",
            "It runs with other settings than this command.",
            "Start web and doctor with the same environment.",
        )


def _label_studio() -> Iterator[Finding]:
    with open_studio() as studio:
        who = studio.get("/api/current-user/whoami")
        kind = "personal access token" if studio.is_personal else "legacy token"
        sent = httpx.get(f"{studio.url}/health", timeout=5, trust_env=False).headers.get("Date")
    skew_s = abs((parsedate_to_datetime(sent) - now()).total_seconds()) if sent else 0.0
    if skew_s > CLOCK_S:
        yield _fault(
            f"its clock differs by {skew_s:.0f} s",
            "Changes may be missed by a round.",
            "Synchronise both clocks (NTP).",
        )
    else:
        yield _ok(f"{studio.url}, {kind} of {who.get('email', 'a user')}")


def _project(studio: Studio, project: Project, _fix: bool) -> Iterator[Finding]:
    there = studio.get(f"/api/projects/{project.studio_project_id}/")
    LabelTask.parse(there["label_config"])
    if config_hash(there["label_config"]) != config_hash(project.label_config):
        yield _fault(
            "its labelling configuration is not the one that we know",
            "New labels are not learned, removed ones are still predicted.",
            f"Run: nextbatch seed configs/{project.name}.yaml",
        )
    else:
        yield _ok(f"{studio.url}/projects/{project.studio_project_id}")


def _ours(studio: Studio, project: Project) -> dict[str, Any] | None:
    url = _url(settings()) or ""
    entries = studio.get("/api/ml/", {"project": int(project.studio_project_id or 0)})
    return next((one for one in entries if str(one["url"]).rstrip("/") == url), None)


def _backend(studio: Studio, project: Project, fix: bool) -> Iterator[Finding]:
    entry = _ours(studio, project)
    if entry is None and fix:
        _connect(studio, project)
        yield _mended("the backend was not connected")
    elif entry is None:
        yield _fault(
            "Label Studio does not know the backend", "It asks for no predictions.", "Run: nextbatch doctor --fix"
        )
    else:
        state = studio.get(f"/api/ml/{entry['id']}")
        if state.get("state") == "CO":
            yield _ok(f"Label Studio reaches {entry['url']}")
        else:
            yield _fault(
                f"Label Studio does not reach {entry['url']}: {state.get('error_message') or state.get('state')}",
                "No predictions, no webhooks.",
                f"Check NEXTBATCH_URL and that nextbatch serve runs. {PRIVATE}.",
            )


def _connect(studio: Studio, project: Project) -> None:
    process = settings()
    connect.ensure_backend(
        studio,
        int(project.studio_project_id or 0),
        _url(process) or "",
        connect.backend_title(project.name),
        process.username,
        process.password.get_secret_value() if process.password else None,
    )


def _published(project: Project) -> str:
    with reading() as session:
        return (
            session.scalar(
                sa.select(Batch.version)
                .where(Batch.project_id == project.id, Batch.state == "published")
                .order_by(Batch.number.desc())
            )
            or ""
        )


def _model_version(studio: Studio, project: Project, fix: bool) -> Iterator[Finding]:
    path = f"/api/projects/{project.studio_project_id}/"
    have, want = studio.get(path)["model_version"] or "", _published(project)
    if project.settings.publish == "create" or have == want:
        yield _ok(have or "none yet")
    elif fix:
        studio.patch(path, {"model_version": want})
        yield _mended(f"model_version was {have!r}, is {want!r}")
    else:
        yield _fault(
            f"model_version is {have!r}, and the batch is {want!r}",
            "The score column is empty and the queue is random, without a word.",
            "Run: nextbatch doctor --fix",
        )


def _sampling(studio: Studio, project: Project, fix: bool) -> Iterator[Finding]:
    path = f"/api/projects/{project.studio_project_id}/"
    have = studio.get(path)["sampling"]
    allowed = {SAMPLING[project.settings.publish], "Uncertainty sampling"}
    if have in allowed or not _published(project):
        yield _ok(have)
    elif fix:
        studio.patch(path, {"sampling": SAMPLING[project.settings.publish]})
        yield _mended(f"sampling was {have!r}")
    else:
        yield _fault(f"sampling is {have!r}", "People do not get the batch's order.", "Run: nextbatch doctor --fix")


def _webhook(studio: Studio, project: Project, fix: bool) -> Iterator[Finding]:
    url, headers = f"{_url(settings()) or ''}/webhook", _headers(settings())
    hooks = connect.webhooks(studio, int(project.studio_project_id or 0))
    if any(hook["url"] == url and connect.is_ours(hook, headers) for hook in hooks):
        yield _ok(url)
    elif fix:
        connect.ensure_webhook(studio, int(project.studio_project_id or 0), url, headers.get(connect.SECRET_HEADER))
        yield _mended("our webhook was missing or had another secret")
    else:
        half = " although the backend is connected" if _ours(studio, project) else ""
        yield _fault(
            f"our webhook with its secret is missing{half}",
            "No label starts a round; they are only seen when a round runs for another reason.",
            f"Run: nextbatch doctor --fix. {PRIVATE}.",
        )


def _automatic_webhooks(studio: Studio, project: Project, fix: bool) -> Iterator[Finding]:
    url, headers = f"{_url(settings()) or ''}/webhook", _headers(settings())
    hooks = connect.webhooks(studio, int(project.studio_project_id or 0))
    strangers = [hook for hook in hooks if hook["url"] == url and not connect.is_ours(hook, headers)]
    if not strangers:
        yield _ok("none without our secret")
    elif fix:
        for hook in strangers:
            studio.delete(f"/api/webhooks/{hook['id']}/")
        yield _mended(f"{len(strangers)} webhooks without our secret")
    else:
        yield _fault(
            f"{len(strangers)} webhooks to us have no secret of ours",
            "They are refused, and cost the annotator time at every submit.",
            "Run: nextbatch doctor --fix",
        )


def _items(project: Project) -> Iterator[Finding]:
    count = sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project.id)
    with reading() as session:
        items, failed = session.scalar(count) or 0, session.scalar(count.where(Item.state == "failed")) or 0
        reason = session.scalar(
            sa.select(Item.failure)
            .where(Item.project_id == project.id, Item.state == "failed")
            .group_by(Item.failure)
            .order_by(sa.func.count().desc())
            .limit(1)
        )
    if failed > FAILED_SHARE * items:
        yield _fault(
            f"{failed} of {items} could not be read, such as: {reason}", "They are never picked.", "See above."
        )
    else:
        yield _ok(f"{items}, of which {failed} could not be read")


def _rounds(project: Project) -> Iterator[Finding]:
    with reading() as session:
        last = session.scalar(sa.select(Round).where(Round.project_id == project.id).order_by(Round.number.desc()))
    if last is not None and last.state == "failed":
        yield _fault(
            f"round {last.number} failed: {last.failure}",
            "The batch is not renewed.",
            f"Mend that, then run: nextbatch round {project.name}",
        )
    else:
        yield _ok("none yet" if last is None else f"round {last.number} is {last.state}")


def _url(process: Settings) -> str | None:
    return process.url.rstrip("/") if process.url else None


def _headers(process: Settings) -> dict[str, str]:
    secret = process.webhook_secret
    return {connect.SECRET_HEADER: secret.get_secret_value()} if secret else {}
