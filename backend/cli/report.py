"""nextbatch status and report: how it goes, on the terminal and to send to someone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def report(
    project: Annotated[str, typer.Argument(help="The project's name, as in its YAML.")],
    out: Annotated[Path | None, typer.Option(help="The file; default: PROJECT.html here.")] = None,
) -> None:
    """Write one self-contained HTML file: curve, versions, batches, drift and other alerts, costs."""
    from backend.artefacts import whole
    from backend.database import project_named, reading
    from backend.web.report import report as rendered

    with reading() as session:
        page = rendered(session, project_named(session, project))
    path = out or Path(f"{project}.html")
    with whole(path, is_durable=False) as file:
        file.write(page.encode())
    print(path)


def status(
    project: Annotated[str | None, typer.Argument(help="One project; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how projects stand: items, the round, what comes next by itself, and what to do."""
    from backend.database import reading
    from backend.web import words
    from backend.web.views.health import workers
    from backend.web.views.projects import project_state, projects

    with reading() as session:
        names = [project] if project is not None else [one.name for one in projects(session)]
        states, alive = [project_state(session, name) for name in names], workers(session)
    if as_json:
        told = [{**asdict(state), "advice": words.advice(state, alive)} for state in states]
        print(json.dumps(told if project is None else told[0], indent=2, ensure_ascii=False, default=str))
        return
    for state in states:
        counts = "  ".join(f"{name} {count}" for name, count in vars(state.counts).items() if count)
        print(f"{state.name}: {counts or 'no items yet'}")
        if state.round is not None:
            print(f"  round {state.round.number} {state.round.state} {state.round.step}".rstrip())
        if state.encoder is not None:
            print(f"  encoder {state.encoder.name}")
        if told_of_change := words.encoder_change(state):
            print(f"  {told_of_change}")
        print(f"  {words.next_trigger(state)}\n  {words.advice(state, alive)}")
