"""The other side: Label Studio, our token there, and its clock."""

import datetime as dt
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from backend.connections import certificates
from backend.database import now
from backend.doctor.finding import Finding, fault, ok, skipped, told
from backend.doctor.site import Site
from backend.errors import BadToken, MissingSetting

CLOCK_S = 30.0
TIMEOUT_S = 5.0
_WHY = "Labels cannot be pulled, and no batch reaches people."


def answers(site: Site) -> Iterator[Finding]:
    """It is there, it is Label Studio, and it takes our token."""
    try:
        studio = site.studio
    except MissingSetting as error:
        yield fault(told(error), _WHY, "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.")
        return
    correct = "Start it, or correct LABEL_STUDIO_URL."
    try:
        answer = httpx.get(f"{studio.url}/api/version", timeout=TIMEOUT_S, trust_env=False, verify=certificates())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield fault(f"{studio.url} does not answer: {told(error)}", _WHY, correct)
        return
    try:
        release = answer.raise_for_status().json()["release"]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        what = f"{studio.url} is answered by something else (HTTP {answer.status_code})"
        yield fault(what, _WHY, correct)
        return
    kind = "a personal access token" if studio.is_personal else "a legacy token"
    try:
        studio.get("/api/current-user/whoami")
    except BadToken:
        legacy = "" if studio.is_personal else " Or switch legacy tokens on in the organisation's settings."
        mend = f"Copy a new token from its Account & Settings page into LABEL_STUDIO_API_KEY.{legacy}"
        yield fault(f"{studio.url} refuses the API key ({kind})", _WHY, mend)
        return
    yield ok(f"{release} at {studio.url}, with {kind}")


def clock(site: Site) -> Iterator[Finding]:
    """The Date header has whole seconds, and is cut, not rounded."""
    try:
        began = now()
        answer = httpx.get(f"{site.studio.url}/health", timeout=TIMEOUT_S, trust_env=False, verify=certificates())
        ours = began + (now() - began) / 2
        theirs = parsedate_to_datetime(answer.headers["Date"]) + dt.timedelta(seconds=0.5)
    except (MissingSetting, httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError) as error:
        yield skipped(f"Label Studio did not tell the time: {told(error)}")
        return
    ahead_s = (theirs - ours).total_seconds()
    if abs(ahead_s) > CLOCK_S:
        what = f"Label Studio's clock is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
        why = "A round reads what changed since the last one, by its clock and ours: changes may be missed."
        yield fault(what, why, "Synchronise both clocks (NTP).")
    else:
        yield ok("both clocks agree")
