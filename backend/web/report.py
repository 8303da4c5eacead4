"""A project's report: one HTML file with everything in it, to send to someone. It asks no other host for anything."""

from pathlib import Path

import jinja2
from sqlalchemy.orm import Session

from backend.database import Project, now
from backend.web import charts, words
from backend.web.formats import FILTERS
from backend.web.views.batches import batches
from backend.web.views.costs import costs
from backend.web.views.hand import books
from backend.web.views.health import alerts, failures, workers
from backend.web.views.models import curve, models
from backend.web.views.page import MOST
from backend.web.views.projects import project_state
from backend.web.views.rounds import recent_rounds

_HERE = Path(__file__).parent


def report(session: Session, project: Project) -> str:
    """The report as HTML: the state, the learning curve, versions, batches, what was noticed, what it cost."""
    state, drawn = project_state(session, project.name), curve(session, project)
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
    templates.filters.update(FILTERS)
    return templates.get_template("report.html").render(
        name=project.name,
        made_at=now(),
        style=(_HERE / "static" / "style.css").read_text(),
        state=state,
        bar=charts.bar(state.counts),
        curve=drawn,
        chart=charts.learning_curve(drawn.points, drawn.arms),
        advice=words.advice(state, workers(session)),
        models=models(session, project, MOST),
        batches=batches(session, project, MOST),
        rounds=recent_rounds(session, project, MOST),
        alerts=alerts(session, project, MOST),
        failures=failures(session, project),
        costs=costs(session, project),
        deeds=books(session, project, 50),
    )
