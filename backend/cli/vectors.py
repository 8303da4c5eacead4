"""nextbatch encode and nextbatch vectors: embeddings, made and checked by hand."""

import json
import signal
import threading
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer(help="Check and clean the stored embeddings.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(help="The project's name, as in its YAML.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    project: Project,
    mend: Annotated[bool, typer.Option(help="Forget damaged blocks; their items are encoded again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every stored embedding back and compare checksums."""
    from backend.database import project_named, reading
    from backend.rounds.encoding import open_embeddings

    with reading() as session:
        described = project_named(session, project)
    embeddings = open_embeddings(described)
    found = embeddings.store.verify(mend=mend)
    lost = sum(block.rows for block in found.damaged)
    if as_json:
        told = {"encoder": embeddings.spec.name, "digest": embeddings.digest, "embeddings": found.rows, "damaged": lost}
        print(json.dumps(told, indent=2))
    else:
        print(f"{found.rows} embeddings of {embeddings.spec.name} {embeddings.digest[:12]}, {lost} damaged")
    if lost and not mend and not as_json:
        print(f"Repeat with --mend to forget the damaged ones, then: nextbatch encode {project}")
    raise typer.Exit(1 if lost and not mend else 0)


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only counted.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count, or remove, vectors that no project, label or model version refers to. Runs beside everything but scans."""
    from backend.rounds.garbage import collect

    if as_json:
        print(json.dumps([asdict(found) for found in collect(is_dry=not yes)], indent=2, default=str))
        return
    unwanted = 0
    for found in collect(is_dry=not yes):
        unwanted += found.unwanted
        use = "" if found.is_used else ", of an encoder that nothing uses"
        print(
            f"{found.digest[:12]}: {found.unwanted} of {found.vectors} vectors {'removed' if yes else 'unused'}{use}, "
            f"{found.size_bytes / 2**20:.1f} MiB on disk"
            + (f"; {found.emptied_segments} segments go in an hour" if found.emptied_segments else "")
        )
    if unwanted and not yes:
        print("Nothing was removed. Repeat with --yes.")


def encode(
    project: Project,
    follow: Annotated[
        bool, typer.Option("--follow", help="Where a worker encodes this pool already, follow it and do nothing else.")
    ] = False,
) -> None:
    """Encode what has no embedding yet, here and now; Ctrl-C stops within a second, and what is done is kept."""
    from backend.cli.progress import progress
    from backend.database import project_named, reading
    from backend.rounds.encoding import encode_new
    from backend.rounds.following import moments
    from backend.scoring.stages import Stages

    with reading() as session:
        project_id = project_named(session, project).id
    if follow:
        moment = None
        with progress("items") as show:
            for moment in moments(project_id):
                show(moment.done, moment.total, str(moment.speed))
        if moment is not None:
            print(f"{moment.done} of {moment.total} items when a worker's scan was last seen")
            return
    stages = Stages()
    cancel = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: cancel.set())
    try:
        with progress("items") as show:
            report = encode_new(
                project_id, lambda done, total: show(done, total, str(stages.look(total - done))), cancel, stages
            )
    finally:
        signal.signal(signal.SIGINT, before)
    print(f"{report['encoded']} items encoded, {report['failed']} failed{' (stopped)' if cancel.is_set() else ''}")
    raise typer.Exit(130 if cancel.is_set() else 0)
