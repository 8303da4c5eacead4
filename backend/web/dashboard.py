"""The pages: what people look at instead of logs. Rendered here, whole without script, with nothing from elsewhere."""

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException, NotFound

from backend.database import Project, project_named, reading
from backend.errors import NextbatchError, UnknownProject
from backend.learning import registry
from backend.rounds.arms import comparisons
from backend.rounds.journal import MOST_OF_A_RUN
from backend.web import charts, configuring, deeds, readiness, reference, sessions, thumbnails, words
from backend.web.api import refuse_impossible_names
from backend.web.formats import FILTERS
from backend.web.openapi import LARGEST, document
from backend.web.views.atlas import failed_on_map, map_view, points, unfolded_points
from backend.web.views.batches import find_batch, published_batch
from backend.web.views.comparison import side_by_side
from backend.web.views.hand import by_hand
from backend.web.views.health import alerts, failures, health, workers
from backend.web.views.items import find_item
from backend.web.views.jobs import work
from backend.web.views.labelling import labelling
from backend.web.views.logs import KINDS, last_lines, lines
from backend.web.views.models import curve, models
from backend.web.views.projects import project_state, projects
from backend.web.views.rounds import STEPS, recent_rounds

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ROUNDS, _PICKS, _MODELS, _ALERTS, _LINES = 12, 50, 25, 50, 8  # rows a page
_DAY_S = 86_400


def blueprint() -> Blueprint:
    """The pages, their style and script, and the thumbnails."""
    pages = Blueprint("dashboard", __name__, template_folder="templates", static_folder="static")
    pages.before_request(sessions.require_person)
    pages.before_request(refuse_impossible_names)
    pages.after_request(_guard)
    pages.register_error_handler(UnknownProject, lambda error: _refusal(404, str(error)))
    pages.register_error_handler(NextbatchError, lambda error: _refusal(400, str(error)))
    pages.register_error_handler(HTTPException, lambda error: _refusal(error.code or 500, error.description or ""))
    for name, form in FILTERS.items():
        pages.app_template_filter(name)(form)
    pages.app_template_global("token")(sessions.token)
    pages.app_template_global("is_person")(sessions.is_person)
    pages.add_url_rule("/projects", view_func=project_list)
    pages.add_url_rule("/projects/<name>", view_func=loop)
    pages.add_url_rule("/projects/<name>/learning", view_func=learning)
    pages.add_url_rule("/projects/<name>/batch", view_func=batch)
    pages.add_url_rule("/projects/<name>/map", view_func=map_page)
    pages.add_url_rule("/projects/<name>/map/points", view_func=map_points)
    pages.add_url_rule("/projects/<name>/map/umap", view_func=map_unfolded)
    pages.add_url_rule("/projects/<name>/models", view_func=model_list)
    pages.add_url_rule("/projects/<name>/models/compare", view_func=compare)
    pages.add_url_rule("/projects/<name>/health", view_func=health_page)
    kinds = ", ".join(f'"{kind}"' for kind in KINDS)
    pages.add_url_rule(f"/projects/<name>/<any({kinds}):kind>/<int:number>/log", view_func=log_page)
    pages.add_url_rule("/api", view_func=api_page)
    pages.add_url_rule("/api/openapi.json", "openapi", document)
    pages.add_url_rule("/login", view_func=sessions.login)
    pages.add_url_rule("/login", view_func=sessions.log_in, methods=["POST"])
    pages.add_url_rule("/logout", view_func=sessions.log_out, methods=["POST"])
    deeds.add_rules(pages)
    configuring.add_rules(pages)
    pages.add_url_rule("/projects/<name>/items/<int:item_id>/thumbnail", view_func=thumbnail)
    return pages


def project_list() -> str:
    """All projects."""
    with reading() as session:
        return render_template("projects.html", projects=projects(session), workers=workers(session))


def loop(name: str) -> str:
    """The loop: its state in one picture, what runs, what comes next, the learning curve."""
    with reading() as session:
        project, state = project_named(session, name), project_state(session, name)
        drawn, alive = curve(session, project), workers(session)
        return _page(
            "loop.html",
            project,
            state=state,
            bar=charts.bar(state.counts),
            steps=STEPS,
            rounds=recent_rounds(session, project, _ROUNDS).items,
            curve=drawn,
            chart=charts.learning_curve(drawn.points, drawn.arms),
            backtests=len(comparisons(session, project.id, "backtest")),
            work=work(session, project),
            next_trigger=words.next_trigger(state),
            encoder_change=words.encoder_change(state),
            advice=words.advice(state, alive),
        )


def learning(name: str) -> str:
    """The learning curve, and what backtests on the project's labels found."""
    with reading() as session:
        project = project_named(session, name)
        drawn, found = curve(session, project), comparisons(session, project.id, "backtest")
        return _page(
            "learning.html",
            project,
            curve=drawn,
            chart=charts.learning_curve(drawn.points, drawn.arms),
            backtests=[(one, charts.comparison(one)) for one in found],
        )


def batch(name: str) -> str:
    """A batch in rank order: the published one, or the one of `?number=`."""
    with reading() as session:
        project = project_named(session, name)
        number = _argument("number")
        number = published_batch(session, project) if number is None else number
        found = None if number is None else find_batch(session, project, number, _PICKS, _argument("from") or 0)
        if found is None and "number" in request.args:
            raise NotFound(f"{name} has no batch {number}.")
        return _page(
            "batch.html",
            project,
            view=found,
            hand=by_hand(session, project),
            is_open=found is not None and found.batch.number == published_batch(session, project),
            is_pictured=thumbnails.is_pictured(project),
        )


def map_page(name: str) -> str:
    """The items in two dimensions, from which people choose."""
    with reading() as session:
        project = project_named(session, name)
        return _page(
            "map.html",
            project,
            view=map_view(session, project),
            failed=failed_on_map(session, project),
            failures=failures(session, project),
            most=deeds.MOST_ITEMS,
            is_pictured=thumbnails.is_pictured(project),
        )


def map_points(name: str) -> Response:
    """The map's points as bytes; `views.atlas.points` says how."""
    with reading() as session:
        found = points(session, project_named(session, name))
    return _bytes(found)


def map_unfolded(name: str) -> Response:
    """Where the points are by UMAP; `views.atlas.unfolded_points` says how."""
    with reading() as session:
        project = project_named(session, name)
    return _bytes(unfolded_points(project))


def _bytes(found: bytes | None) -> Response:
    if found is None:
        raise NotFound("There is no such map yet. A round draws it, and a worker unfolds it later.")
    response = Response(found, mimetype="application/octet-stream", headers={"Cache-Control": "private, no-cache"})
    response.add_etag()
    response.make_conditional(request)
    return response


def model_list(name: str) -> str:
    """The versions, newest first."""
    with reading() as session:
        project = project_named(session, name)
        return _page("models.html", project, page=models(session, project, _MODELS, _argument("from")))


def compare(name: str) -> str:
    """Two versions side by side."""
    with reading() as session:
        project = project_named(session, name)
        one, other = (registry.find(session, project.id, request.args.get(which, "")) for which in ("one", "other"))
        pair = side_by_side(session, project, one, other)
        return _page("compare.html", project, pair=pair, is_pictured=thumbnails.is_pictured(project))


def health_page(name: str) -> str:
    """What is wrong, or might be."""
    with reading() as session:
        project = project_named(session, name)
        page = alerts(session, project, _ALERTS, _argument("from"))
        doing = work(session, project)
        return _page(
            "health.html",
            project,
            health=health(session, project),
            services=readiness.services(),
            labelling=labelling(session, project),
            page=page,
            work=doing,
            lines=[] if doing.round is None else last_lines(session, project, "rounds", doing.round, _LINES),
        )


def log_page(name: str, kind: str, number: int) -> str:
    """What a round, a part of a scan or a change of the encoder wrote."""
    with reading() as session:
        project = project_named(session, name)
        found = None if number > LARGEST else lines(session, project, kind, number, MOST_OF_A_RUN)
        if found is None:
            raise NotFound(f"{name} has nothing of that number.")
        what = f"{words.LOGGED[kind]} {number}" if kind != "encoder-changes" else words.LOGGED[kind]
        return _page("log.html", project, what=what, lines=found.items[::-1])


def api_page() -> str:
    """What programs may ask."""
    return render_template("api.html", operations=reference.operations(), kinds=reference.kinds())


def thumbnail(name: str, item_id: int) -> Response:
    """The item's picture; a browser keeps it for a day, and asks by its content's hash after that."""
    with reading() as session:
        project = project_named(session, name)
        item = None if item_id > LARGEST else find_item(session, project, item_id)
    if item is None or not thumbnails.is_pictured(project):
        raise NotFound("There is no such picture.")
    tag = thumbnails.entity_tag(item)
    if tag is not None and request.if_none_match.contains(tag):
        response = Response(status=304)
    else:
        try:
            response = Response(thumbnails.thumbnail(project, item), mimetype="image/jpeg")
        except thumbnails.Busy:
            return Response("busy\n", 503, {"Retry-After": "2"}, mimetype="text/plain")
        except NextbatchError as error:
            return Response(f"{error}\n", 404, {"Cache-Control": "private, max-age=60"}, mimetype="text/plain")
    response.cache_control.private = True
    response.cache_control.max_age = _DAY_S if tag is not None else 60
    if tag is not None:
        response.set_etag(tag)
    return response


def _page(template: str, project: Project, **values: Any) -> str:
    return render_template(template, name=project.name, **values)


def _argument(name: str) -> int | None:
    given = request.args.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal()) or len(given) > 19 or int(given) > LARGEST:
        raise BadRequest(f"{name} must be a whole number.")
    return int(given)


def _refusal(status: int, text: str) -> Response:
    return make_response(render_template("refused.html", status=status, text=text), status)


def _guard(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "same-origin"  # without one, browsers hide the Origin of our own form
    response.headers["X-Frame-Options"] = "DENY"
    if response.mimetype == "text/html":
        response.headers.setdefault("Cache-Control", "no-store")
    return response
