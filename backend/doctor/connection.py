"""A project in Label Studio: that it is there, that the two sides call each other, and with the secret."""

import ipaddress
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from backend.database import Project, transaction
from backend.doctor.finding import Finding, fault, ok, skipped
from backend.doctor.site import ProjectSite
from backend.errors import BadLabelConfig, NoSuchPage
from backend.studio import connect
from backend.studio.labels import LabelTask, config_hash

PRIVATE = "In Label Studio set ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false: it blocks private addresses."


def project(here: ProjectSite) -> Iterator[Finding]:
    """It is there."""
    try:
        here.page()
    except NoSuchPage:
        seed = f"Run: nextbatch seed configs/{here.project.name}.yaml"
        what = f"Label Studio has no project {here.id} that the API key's user can see"
        yield fault(what, "There is nowhere to publish to.", f"Give that user the project. If it was deleted: {seed}")
    else:
        yield ok(f"{here.site.studio.url}/projects/{here.id}")


def labels(here: ProjectSite) -> Iterator[Finding]:
    """It asks people what we believe it asks."""
    theirs = str(here.page()["label_config"])
    why = "New choices are not learned, and removed ones are still predicted."
    try:
        now_asked = LabelTask.parse(theirs)
    except BadLabelConfig as error:
        yield fault(f"its labelling configuration cannot be used: {error.facts['problem']}", why, str(error))
        return
    if config_hash(theirs) == config_hash(here.project.label_config):
        yield ok("its labelling configuration is the one that we know")
        return
    known = LabelTask.parse(here.project.label_config)
    # What only adds can be taken over; where something went or was renamed, a person should know what it means.
    shows, showed = ((one.data_key, one.kind, one.is_inline, one.control, one.task) for one in (now_asked, known))
    if shows == showed and set(known.choices) <= set(now_asked.choices):
        added = ", ".join(one for one in now_asked.choices if one not in known.choices)
        what = f"its labelling configuration was changed ({f'new choices: {added}' if added else 'same choices'})"
        yield fault(what, why, repair=lambda: _take_over(here, theirs))
    else:
        gone = ", ".join(one for one in known.choices if one not in now_asked.choices) or "no choice"
        yield fault(
            f"its labelling configuration was changed ({gone} is gone)",
            why,
            f"Run: nextbatch seed configs/{here.project.name}.yaml",
        )


def _take_over(here: ProjectSite, label_config: str) -> None:
    with transaction() as session:
        session.execute(sa.update(Project).where(Project.id == here.project.id).values(label_config=label_config))
    here.project.label_config = label_config


def backend(here: ProjectSite) -> Iterator[Finding]:
    """Label Studio knows us and reaches us: it calls every backend of a project before it lists them."""
    entry = here.ours()
    if entry is None:
        others = ", ".join(str(one["url"]) for one in here.backends() if _is_named_like_us(one, here))
        what = f"Label Studio does not call {here.site.url}{f' but {others}' if others else ''}"
        yield fault(what, "It asks for no predictions, and tells us nothing.", repair=here.connect)
        return
    if entry["state"] in ("CO", "PR", "TR"):
        yield ok(f"Label Studio reaches {entry['url']}")
        return
    user = here.site.login[0] if here.site.login else None
    why = "Opening a task shows no prediction, and events do not arrive."
    if user is not None and (entry.get("basic_auth_user") != user or not entry.get("basic_auth_pass_is_set")):
        yield fault("Label Studio calls us without our username and password", why, repair=here.connect)
    elif "web" not in here.site.healthy:
        yield skipped(f"Label Studio does not reach {entry['url']}: mend web first")
    elif entry["state"] == "ER":
        what = f"Label Studio reaches {entry['url']} and is refused: {entry.get('error_message')}"
        yield fault(what, why, repair=here.connect if user is not None else None)
    else:
        yield fault(
            f"Label Studio does not reach {entry['url']}, and this machine does",
            why,
            _unreachable(entry["url"], here),
            here.connect if user is not None else None,
        )


def _is_named_like_us(entry: dict[str, Any], here: ProjectSite) -> bool:
    return str(entry.get("title")) == connect.backend_title(here.project.name)


def _unreachable(url: str, here: ProjectSite) -> str:
    """What is most likely, by the kind of address."""
    studio = here.site.studio.url
    if _is_loopback(url) and not _is_loopback(studio):
        return f"There, that address is {studio}'s own machine. Set NEXTBATCH_URL to one that reaches us from there."
    if _is_private(url):
        return PRIVATE
    return "Open the way from Label Studio to that address (firewall, proxy, DNS), or correct NEXTBATCH_URL."


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_private(url: str) -> bool:
    """A bare name is one of a container network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


def webhook(here: ProjectSite) -> Iterator[Finding]:
    """Ours is there, with our secret, for the events that we read."""
    url, headers = f"{here.site.url}/webhook", _headers(here)
    ours = [one for one in here.webhooks() if one["url"] == url]
    if any(connect.is_ours(one, headers) for one in ours):
        yield ok(url)
        return
    if not ours:
        half = " although it has the backend: the connection is half made" if here.ours() else ""
        what = f"Label Studio has no webhook to {url}{half}"
    else:
        what = f"the webhook to {url} {_difference(ours[0], headers)}"
    why = "No label starts a round; labels are seen when a round runs for another reason."
    yield fault(what, why, repair=lambda: connect.ensure_webhook(here.site.studio, here.id, url, here.site.secret))


def _difference(hook: dict[str, Any], headers: dict[str, str]) -> str:
    given = dict(hook.get("headers") or {})
    if not hook.get("is_active"):
        return "is switched off"
    if given != headers:
        return "has another secret than ours" if connect.SECRET_HEADER in given else "does not carry the secret"
    return "is for other events than we read"


def automatic_webhooks(here: ProjectSite) -> Iterator[Finding]:
    """Adding a backend makes a webhook without a header, for everything."""
    url, headers = f"{here.site.url}/webhook", _headers(here)
    ours = [one for one in here.webhooks() if one["url"] == url]
    others = len(ours) - 1
    if others == 0 and connect.is_ours(ours[0], headers):
        yield ok("none beside ours")
        return
    what = f"{others} more webhook{'s lead' if others > 1 else ' leads'} to {url}"
    why = "Every submit waits for each of them, and without the secret they are refused."
    yield fault(what, why, repair=lambda: connect.ensure_webhook(here.site.studio, here.id, url, here.site.secret))


def _headers(here: ProjectSite) -> dict[str, str]:
    return {connect.SECRET_HEADER: here.site.secret} if here.site.secret else {}
