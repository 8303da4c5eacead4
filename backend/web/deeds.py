"""What a person does on the pages: each form ends here, carries its session's token, and leaves a line in the books."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, redirect, render_template, request, url_for
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest, NotFound

from backend.database import Batch, Project, lock_project, project_named, reading, transaction
from backend.learning import registry
from backend.rounds import changes, hand
from backend.rounds.likes import Like
from backend.rounds.queue import cancel, request_round
from backend.web.openapi import LARGEST
from backend.web.sessions import actor, require_form
from backend.web.views.health import failed_items

MOST_ITEMS = hand.MOST_FIRST


def add_rules(pages: Blueprint) -> None:
    """The forms' addresses, and the page that asks once more before a model is changed."""
    for path, act in (
        ("rounds", ask_for_round),
        ("rounds/<int:number>/cancel", cancel_round),
        ("batch/items", decide),
        ("map/items", choose),
        ("models/promote", promote),
        ("models/rollback", roll_back),
        ("health/retry", retry),
    ):
        pages.add_url_rule(f"/projects/<name>/{path}", view_func=act, methods=["POST"])
    pages.add_url_rule("/projects/<name>/models/change", view_func=confirm)


def ask_for_round(name: str) -> Any:
    """The button: a round by hand."""
    require_form()
    with transaction() as session:
        request_round(session, project_named(session, name).id, "dashboard")
    return redirect(url_for("dashboard.loop", name=name), 303)


def cancel_round(name: str, number: int) -> Any:
    """End a round that waits or runs, as soon as it notices."""
    require_form()
    with transaction() as session:
        project = project_named(session, name)
        found = cancel(session, project.id, _number(str(number)))
        if found is None:
            raise NotFound(f"{name} has no round {number}.")
        hand.note(session, project.id, actor(), "cancel", f"round {number}")
    return redirect(url_for("dashboard.loop", name=name), 303)


def decide(name: str) -> Any:
    """The batch's buttons: `first 12`, `never 12`, `free 12`, or `order` with a `rank-12` for each item."""
    require_form()
    deed, _, item = request.form.get("deed", "").partition(" ")
    with transaction() as session:
        project = project_named(session, name)
        if deed == "order":
            _reorder(session, project)
        elif deed in ("first", "never"):
            hand.mark(session, project, [_number(item)], "first" if deed == "first" else "never", actor())
        elif deed == "free":
            hand.unmark(session, project, [_number(item)], actor())
        else:
            raise BadRequest("That is none of this page's buttons.")
    return redirect(url_for("dashboard.batch", name=name, **_place()), 303)


def choose(name: str) -> Any:
    """The map's buttons: label these next, or what is like them. Both ask for the round that does it."""
    require_form()
    items = [_number(one) for one in request.form.get("items", "").split(",") if one]
    if not 0 < len(items) <= MOST_ITEMS:
        raise BadRequest(f"Choose from 1 to {MOST_ITEMS} items.")
    with transaction() as session:
        project = project_named(session, name)
        if request.form.get("deed") == "like":
            request_round(session, project.id, "dashboard", Like(tuple(items)).as_dict())
            hand.note(session, project.id, actor(), "like", f"{len(items)} items of the map")
        else:
            hand.mark(session, project, items, "first", actor())
            request_round(session, project.id, "dashboard")
    return redirect(url_for("dashboard.loop", name=name), 303)


def confirm(name: str) -> str:
    """Asks once more: what answers now, and what would answer then."""
    with reading() as session:
        project = project_named(session, name)
        champion = registry.champion(session, project.id)
        to = request.args.get("to", "")
        after = registry.find(session, project.id, to) if to else registry.earlier(session, project.id)
        return render_template("confirm.html", name=name, champion=champion, after=after, is_rollback=not to)


def promote(name: str) -> Any:
    """Let the version of the form answer from now on."""
    require_form()
    with transaction() as session:
        project = project_named(session, name)
        registry.promote(session, registry.find(session, project.id, request.form.get("version", "")), actor())
        changes.follow_champion(session, project)
    return redirect(url_for("dashboard.model_list", name=name), 303)


def roll_back(name: str) -> Any:
    """Go back to the version that answered before."""
    require_form()
    with transaction() as session:
        project = project_named(session, name)
        lock_project(session, project.id)  # a form that is sent twice goes back once
        if registry.earlier(session, project.id).name != request.form.get("version", ""):
            raise BadRequest("Another version answers meanwhile: load the page again.")
        registry.rollback(session, project.id, actor())
        changes.follow_champion(session, project)
    return redirect(url_for("dashboard.model_list", name=name), 303)


def retry(name: str) -> Any:
    """Let the items that failed for the form's reason be tried again, and ask for the round that tries."""
    require_form()
    reason = request.form.get("reason", "")
    with transaction() as session:
        project = project_named(session, name)
        if hand.retry(session, project, failed_items(session, project, reason), reason, actor()):
            request_round(session, project.id, "dashboard")
    return redirect(url_for("dashboard.health_page", name=name), 303)


def _reorder(session: Session, project: Project) -> None:
    """Move the items that were given another rank than the page showed, the foremost first."""
    number = _number(request.form.get("number", ""))
    newest = sa.select(sa.func.max(Batch.number)).where(Batch.project_id == project.id, Batch.state == "published")
    if session.scalar(newest) != number:
        raise BadRequest("Another batch was published meanwhile: load the page again.")
    shown = [_number(one) for one in request.form.get("shown", "").split(",") if one]
    start = _number(request.form.get("start", "0"))
    wanted = [(_number(request.form.get(f"rank-{one}", "0")) - 1, start + at, one) for at, one in enumerate(shown)]
    for rank, was, item_id in sorted(wanted):
        if rank != was:
            hand.move(session, project, item_id, rank, actor())


def _place() -> dict[str, Any]:
    """Where on the batch's pages the button stood."""
    given = {name: request.form.get(name, "") for name in ("number", "from")}
    return {name: value for name, value in given.items() if value.isascii() and value.isdecimal()}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) > LARGEST:
        raise BadRequest("An item's number must be a whole number.")
    return int(text)
