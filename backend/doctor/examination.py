"""Run the checks in order: one that fails by itself is a finding, and the others go on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import pydantic
import sqlalchemy as sa

from backend.database import Project, project_named, reading
from backend.doctor import connection, label_studio, machine, order, pool
from backend.doctor.finding import Finding, fault, skipped, told, without_secrets
from backend.doctor.site import ProjectSite, Site
from backend.errors import NextbatchError

S = TypeVar("S")


@dataclass(frozen=True)
class Check(Generic[S]):
    """A check, and those that must have found no fault before it can say anything of its own."""

    name: str
    look: Callable[[S], Iterator[Finding]]
    needs: tuple[str, ...] = ()


OF_THE_SITE: tuple[Check[Site], ...] = (
    Check("database", machine.database),
    Check("storage", machine.storage),
    Check("worker", machine.worker, ("database",)),
    Check("triton", machine.triton),
    Check("web", machine.web),
    Check("webhook secret", machine.webhook_secret, ("web",)),
    Check("Label Studio", label_studio.answers),
    Check("clock", label_studio.clock),
)
OF_A_PROJECT: tuple[Check[ProjectSite], ...] = (
    Check("project", connection.project, ("Label Studio",)),
    Check("project", connection.labels, ("Label Studio", "project")),
    Check("backend", connection.backend, ("Label Studio", "project")),
    Check("webhook", connection.webhook, ("Label Studio", "project")),
    Check("automatic webhooks", connection.automatic_webhooks, ("Label Studio", "project", "webhook")),
    Check("model version", order.model_version, ("Label Studio", "project")),
    Check("sampling", order.sampling, ("Label Studio", "project")),
    Check("annotations per task", order.annotations_per_task, ("Label Studio", "project")),
    Check("source", pool.source),
    Check("items", pool.items),
    Check("rounds", pool.rounds),
)


def examine(name: str | None = None, fix: bool = False) -> list[Finding]:
    """All checks, of one project or of all; with `fix`, what is safe to mend is mended. Raises UnknownProject."""
    try:
        site = Site()
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_input=False))
        return [replace(fault(problems, "Nothing can start.", "Correct the environment."), check="settings")]
    with site:
        found = [one for check in OF_THE_SITE for one in _run(check, site, site.healthy, "", fix)]
        if "database" in site.healthy:
            for project in _projects(name):
                here = ProjectSite(site, project)
                healthy = set(site.healthy)
                is_ours = project.settings.label_source == "api"
                for check in OF_A_PROJECT:
                    if is_ours and "Label Studio" in check.needs:
                        continue  # this project has none
                    found += _run(check, here, healthy, f"{project.name}: ", fix, site.forget)
        return [without_secrets(one, site.process) for one in found]


def _projects(name: str | None) -> list[Project]:
    with reading() as session:
        if name is not None:
            return [project_named(session, name)]
        return list(session.scalars(sa.select(Project).order_by(Project.name)))


def _run(
    check: Check[S], subject: S, healthy: set[str], prefix: str, fix: bool, forget: Callable[[], None] = lambda: None
) -> list[Finding]:
    missing = [name for name in check.needs if name not in healthy]
    if missing:
        found = [skipped(f"mend {missing[0]} first")]
    else:
        found = _look(check, subject)
        if fix:
            found = _mend(check, subject, found, forget)
        if not any(one.is_fault for one in found):
            healthy.add(check.name)
    return [replace(one, check=f"{prefix}{check.name}") for one in found]


def _look(check: Check[S], subject: S) -> list[Finding]:
    try:
        return list(check.look(subject))
    except NextbatchError as error:
        return [fault(told(error), "This could not be checked.", "See the message.")]
    except Exception as error:  # whatever a broken set-up makes a library raise
        what = f"the check failed: {type(error).__name__}: {told(error)}"
        return [fault(what, "This could not be checked.", "See the message.")]


def _mend(check: Check[S], subject: S, found: list[Finding], forget: Callable[[], None]) -> list[Finding]:
    """Repair, look again, and call mended only what the second look no longer finds."""
    broken = [one for one in found if one.repair is not None]
    if not broken:
        return found
    refused = ""
    for one in broken:
        assert one.repair is not None
        try:
            one.repair()
        except Exception as error:  # as above
            refused = f" Mending it failed: {told(error)}"
    forget()
    left = [one for one in _look(check, subject) if one.is_fault]
    gone = [one for one in broken if one.what not in {now.what for now in left}]
    return [replace(one, what=f"{one.what}{refused}") for one in left] + [
        replace(one, is_fault=False, is_mended=True) for one in gone
    ]
