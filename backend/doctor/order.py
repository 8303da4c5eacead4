"""What orders the queue in Label Studio: the project's model version, and its sampling."""

from collections.abc import Iterator

import sqlalchemy as sa

from backend.database import Item, Pick, reading
from backend.doctor.finding import Finding, fault, ok, skipped
from backend.doctor.site import ProjectSite
from backend.studio import publish as publishing

_WHY = "The score column is empty and people get tasks at random, without a word."


def model_version(here: ProjectSite) -> Iterator[Finding]:
    """The published batch's. Connecting a backend, and the settings page, put the backend's title there."""
    if here.is_publishing():
        yield skipped("a round is publishing")
        return
    have = str(here.page()["model_version"] or "")
    batch = here.published()
    wanted = batch.version if batch is not None and here.size(batch) else ""
    if have == wanted:
        yield ok(have or "no batch is published yet")
        return
    if any(have and have == one.get("title") for one in here.backends()):
        what = f"model_version is {have!r}, the backend's title; {_wanted(wanted)}"
    else:
        what = f"model_version is {have!r}; {_wanted(wanted)}"
    if wanted and wanted not in here.site.ask(f"{here.path}model-versions/"):
        lost = f"{what}, whose predictions are gone"
        yield fault(lost, _WHY, f"Run: nextbatch round {here.project.name}")
        return
    yield fault(what, _WHY, repair=lambda: here.site.studio.patch(here.path, {"model_version": wanted}))


def _wanted(version: str) -> str:
    return f"the batch is {version!r}" if version else "no batch is published"


def sampling(here: ProjectSite) -> Iterator[Finding]:
    """What publishing the batch asked for; Label Studio's settings page does not show one of the two."""
    batch = here.published()
    have = str(here.page()["sampling"])
    if here.is_publishing():
        yield skipped("a round is publishing")
        return
    if batch is None:
        yield ok(f"{have}; no batch is published yet")
        return
    with reading() as session:
        ranked = sa.select(Item.task_id).join(Pick, Pick.item_id == Item.id).where(Pick.batch_id == batch.id)
        ids = session.scalars(ranked.order_by(Pick.rank)).all()
    wanted = publishing._sampling(here.project.settings.publish, ids)
    if have == wanted:
        yield ok(have)
    else:
        what = f"sampling is {have!r}, and {here.project.settings.publish!r} needs {wanted!r}"
        why = "People do not get the tasks in the batch's order."
        yield fault(what, why, repair=lambda: here.site.studio.patch(here.path, {"sampling": wanted}))


def annotations_per_task(here: ProjectSite) -> Iterator[Finding]:
    """One. With more, Label Studio leaves any order for tasks that somebody has labelled."""
    wanted = int(here.page()["maximum_annotations"] or 1)
    if wanted == 1:
        yield ok("1")
        return
    why = "Tasks that somebody has labelled come first, at random, before the batch's order."
    mend = "Set Annotations per task to 1 in its settings. For second labels take the strategy active_lab."
    yield fault(f"the project asks for {wanted} annotations of every task", why, mend)
