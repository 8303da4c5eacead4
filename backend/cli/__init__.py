"""The commands. They print and exit; what they do is done below this floor."""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer

from backend.cli import data, deployment, fine_tune, models, quality, quantise, report, select, tokens, vectors
from backend.cli.progress import console, progress, say
from backend.errors import DatabaseUnready, NextbatchError
from strategies.errors import StrategyError

app = typer.Typer(
    name="nextbatch",
    help="Decide what people should label next. Connect it to Label Studio as an ML backend.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
config_app = typer.Typer(help="Show or apply a project's configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
models.app.command()(quality.accepted)
models.app.command("fine-tune")(fine_tune.fine_tune)
models.app.command()(quantise.quantise)
data.app.command()(quality.check)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(vectors.app, name="vectors")
app.add_typer(tokens.app, name="tokens")
app.command()(select.select)
app.command()(vectors.encode)
app.command()(deployment.export)
app.command()(report.report)
app.command()(report.status)

Port = Annotated[int, typer.Option(help="Port to listen on.")]
Host = Annotated[str, typer.Option(help="Address to listen on; leave it at loopback unless a proxy stands before it.")]
ProjectName = Annotated[str, typer.Argument(help="The project's name, as in its YAML.")]
ConfigFile = Annotated[Path, typer.Argument(help="A project's YAML, such as configs/example.yaml.")]


_COMPARED = "auto,max_herding,typiclust,margin_clusters,class_balanced_margin,badge,margin,entropy"


@app.command()
def demo(
    data: Annotated[
        str | None, typer.Option(help="Folder or archive of class folders; default: NEXTBATCH_DATA.")
    ] = None,
    publish: Annotated[str, typer.Option(help="reorder or create.")] = "reorder",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to label.")] = 4,
    pool: Annotated[int, typer.Option(min=100, help="Images in the pool.")] = 3_000,
    batch: Annotated[int, typer.Option(min=2, help="Labels a round.")] = 50,
    out: Annotated[Path, typer.Option(help="Where report.json and curves.png go.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="Same seed, same demo.")] = 0,
    stay: Annotated[bool, typer.Option(help="Stay up afterwards, for a person to label on.")] = True,
) -> None:
    """Start everything on this machine, and watch a real project being labelled in the model's order."""
    from backend.demo.scenario import Scenario, run

    scenario = Scenario(
        data=data, publish=publish, rounds=rounds, pool=pool, batch=batch, out=out, seed=seed, stay=stay
    )
    raise typer.Exit(run(scenario, functools.partial(print, flush=True)))


@app.command()
def serve(host: Host = "127.0.0.1", port: Port = 9090, workers: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Run web, worker and an embedded Triton on this machine, and restart what dies."""
    from backend import logs, supervisor

    logs.configure()
    supervisor.serve(host, port, workers)


@app.command()
def web(host: Host = "127.0.0.1", port: Port = 9090) -> None:
    """Run the web process alone: Label Studio's protocol and the API."""
    from backend import logs
    from backend.web import server

    logs.configure()
    server.run(host, port)


@app.command()
def worker(
    check: Annotated[bool, typer.Option("--check", help="Only say whether a worker of this host is alive.")] = False,
) -> None:
    """Run one worker: it encodes, learns, selects and publishes; with NEXTBATCH_ROLE=encode it only encodes."""
    from backend import logs
    from backend.rounds.heartbeat import alive_here

    if check:
        alive = alive_here()
        print(f"{alive} alive on this host")
        raise typer.Exit(0 if alive else 1)
    from backend.rounds import worker as worker_process

    logs.configure()
    worker_process.run()


@app.command()
def migrate() -> None:
    """Bring the database to this version's tables."""
    from backend.rounds.queue import prepare_database

    prepare_database()


@app.command()
def seed(
    config: ConfigFile,
    wait: Annotated[bool, typer.Option(help="Wait until the first batch is published (a worker must run).")] = False,
) -> None:
    """Create or find the project, import its tasks, connect the backend, ask for the first batch. Safe to repeat."""
    from backend import configuration
    from backend import seed as seeding

    report = seeding.seed(configuration.load(config), progress=say)
    if wait:
        seeding.wait_for_round(report.project_id, progress=say)
    for line in report.lines():
        print(line)


@app.command("round")
def round_(
    project: ProjectName,
    wait: Annotated[bool, typer.Option(help="Wait until the round ends (a worker must run).")] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--like", help="Choose the pool's items most like these tasks: 12,15 or repeated."),
    ] = None,
    like_class: Annotated[str | None, typer.Option(help="Choose the like of items labelled so.")] = None,
    like_errors: Annotated[
        bool, typer.Option(help="Choose the like of what the model gets wrong on the holdout, or of one class there.")
    ] = False,
    check_labels: Annotated[bool, typer.Option(help="Choose labels that the model contradicts, to check.")] = False,
) -> None:
    """Ask for a round by hand; its batch can be the like of given items, of a class, of errors, or labels to check."""
    from backend import seed as seeding
    from backend.database import project_named, transaction
    from backend.rounds import likes
    from backend.rounds.queue import request_round

    with transaction() as session:
        named = project_named(session, project)
        like = likes.like(session, named, ",".join(tasks or ()), like_class, like_errors)
        like = likes.Like(checks=True) if check_labels else like
        asked = request_round(session, named.id, "hand", like.as_dict())
    print(f"round {asked.number} of {project} is {asked.state}")
    if wait:
        seeding.wait_for_round(asked.project_id, asked.number, progress=say)


@app.command()
def doctor(
    project: Annotated[str | None, typer.Argument(help="One project; default: all.")] = None,
    fix: Annotated[bool, typer.Option(help="Mend what is safe to mend.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the live set-up in both directions; say what is wrong, why it matters, and what mends it."""
    from backend import doctor as checks

    findings = checks.examine(project, fix=fix)
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    raise typer.Exit(1 if any(finding.is_fault for finding in findings) else 0)


@app.command()
def backtest(
    labels_of: Annotated[
        str, typer.Argument(help="A folder or archive of class folders, a Label Studio JSON export, or a project.")
    ],
    strategies: Annotated[str, typer.Option(help="Names, with commas between them.")] = _COMPARED,
    against: Annotated[str, typer.Option(help="The baseline.")] = "random",
    seeds: Annotated[int, typer.Option(min=2, help="Replays of each; a claim wants 10 or more.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Labels between two looks.")] = 50,
    labels: Annotated[int, typer.Option(min=2, help="Labels to spend.")] = 500,
    jobs: Annotated[int, typer.Option(min=1, help="Replays at a time.")] = os.cpu_count() or 1,
    out: Annotated[Path, typer.Option(help="Where report.json and curves.png go; a stopped run goes on there.")] = Path(
        "backtest-out"
    ),
    agent: Annotated[bool, typer.Option(help="Drop strategies on the way that cannot win any more.")] = False,
    target: Annotated[float | None, typer.Option(min=0, max=1, help="With --agent: stop at this accuracy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Replay strategies on labels that exist, and say which one would have saved most."""
    from backend.backtest.comparison import Question, compare

    question = Question(tuple(strategies.split(",")), against, seeds, batch, labels, agent, target)
    with progress("replays") as show:
        answer = compare(labels_of, question, out, jobs, say, show)
    print((out / "report.json").read_text() if as_json else answer)


@config_app.command("show")
def config_show(
    project: ProjectName, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print a project's configuration as YAML, or as JSON with its version."""
    from backend import configuration
    from backend.database import project_named, reading

    with reading() as session:
        found = project_named(session, project)
    if as_json:
        told = {"version": found.config_version, "config": found.settings.model_dump(mode="json")}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print(configuration.dump(found.settings), end="")


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of a project's YAML."""
    from backend import configuration

    print(json.dumps(configuration.json_schema(), indent=2))


@app.command()
def apply(
    config: ConfigFile, yes: Annotated[bool, typer.Option("--yes", help="Replace the stored configuration.")] = False
) -> None:
    """Show how a YAML differs from the stored configuration and, with --yes, store it as a new version."""
    from backend import configuration
    from backend import seed as seeding
    from backend.database import reading
    from backend.web import words
    from backend.web.views.projects import project_state

    wanted = configuration.load(config)
    difference = seeding.apply(wanted, replace=yes)
    print(difference or "no difference")
    if yes:
        with reading() as session:
            if told := words.encoder_change(project_state(session, wanted.name)):
                say(told)
    if difference and not yes:
        say("Nothing was changed. Repeat with --yes to store this configuration.")
        raise typer.Exit(1)


def main() -> None:
    """Run a command; an error is one line with its mend, and a traceback with NEXTBATCH_TRACEBACK=1.

    Exit codes: 0 done; 1 refused, or a check found something; 2 used wrongly; 70 a fault of nextbatch; 130 stopped.
    """
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))  # answers alone go to stdout
    try:
        app()
    except Exception as error:
        if os.environ.get("NEXTBATCH_TRACEBACK", "0") not in ("", "0"):
            raise
        sys.exit(_told(error))


def _told(error: Exception) -> int:
    """Say what went wrong in one line; the exit code."""
    text, code = str(error), 1
    if not isinstance(error, NextbatchError | StrategyError):
        problem = _of_database(error) if "sqlalchemy" in sys.modules else ""
        text = str(DatabaseUnready(problem=problem)) if problem else ""
    if not text:
        code = 70
        text = f"a fault of its own, {type(error).__name__}: {error}. NEXTBATCH_TRACEBACK=1 shows where."
    console.print(f"nextbatch: {' '.join(text.split())}", style="red", soft_wrap=True, markup=False)
    return code


def _of_database(error: Exception) -> str:
    """What a database that is away, or has no tables yet, says of it; "" for any other error."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    return str(error.orig).strip() if isinstance(error, OperationalError | ProgrammingError) else ""
