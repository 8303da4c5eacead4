"""The settings' page: a project's configuration as YAML, checked, shown as a difference, then stored as a version."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, make_response, redirect, render_template, request, url_for
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest, NotFound

from backend import configuration
from backend.database import Project, ProjectSettings, project_named, reading, transaction
from backend.errors import BadConfiguration
from backend.rounds import hand
from backend.rounds.configured import difference, replace
from backend.settings import ProjectConfig
from backend.web.sessions import actor, require_form

_VERSIONS = 50


def add_rules(pages: Blueprint) -> None:
    """The page, and its form."""
    pages.add_url_rule("/projects/<name>/settings", view_func=settings_page)
    pages.add_url_rule("/projects/<name>/settings", view_func=change_settings, methods=["POST"])


def settings_page(name: str) -> str:
    """The configuration that holds, or one that held: `?version=3`."""
    with reading() as session:
        project = project_named(session, name)
        config, asked = project.settings, request.args.get("version", "")
        if asked:
            found = (
                session.get(ProjectSettings, (project.id, int(asked))) if asked.isdecimal() and len(asked) < 9 else None
            )
            if found is None:
                raise NotFound(f"{name} has no configuration {asked}.")
            config = ProjectConfig.model_validate(found.config)
        return _page(session, project, configuration.dump(config))


def change_settings(name: str) -> Any:
    """Check the form's YAML: what is wrong, or how it differs; with `store`, store it."""
    require_form()
    text = request.form.get("yaml", "").replace("\r\n", "\n")
    with transaction() as session:
        project = project_named(session, name)
        try:
            config = configuration.loads(text, "these settings")
            if config.name != name:
                raise BadRequest(f"A project keeps its name: write `name: {name}`.")
            if request.form.get("version") != str(project.config_version):
                raise BadRequest("Somebody else stored other settings meanwhile: load the page again.")
        except (BadConfiguration, BadRequest) as error:
            problem = error.description if isinstance(error, BadRequest) else str(error)
            return make_response(_page(session, project, text, problem=problem or ""), 400)
        if request.form.get("deed") != "store":
            return _page(session, project, text, change=difference(project, config) or "Nothing differs.")
        if replace(session, project, config):
            hand.note(session, project.id, actor(), "settings", f"version {project.config_version}")
    return redirect(url_for("dashboard.settings_page", name=name), 303)


def _page(session: Session, project: Project, text: str, *, problem: str = "", change: str = "") -> str:
    kept = session.scalars(
        sa.select(ProjectSettings)
        .where(ProjectSettings.project_id == project.id)
        .order_by(ProjectSettings.version.desc())
        .limit(_VERSIONS)
    ).all()
    return render_template(
        "settings.html",
        name=project.name,
        text=text,
        version=project.config_version,
        versions=kept,
        problem=problem,
        change=change,
        rows=min(40, text.count("\n") + 2),
    )
