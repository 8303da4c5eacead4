"""nextbatch models: the versions of a project's model."""

import getpass
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backend.database import ModelVersion

app = typer.Typer(help="List, compare, promote, roll back and export model versions.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(help="The project's name, as in its YAML.")]
Version = Annotated[str, typer.Argument(help="A version, such as v7, or champion.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def actor() -> str:
    """Who types: the account's name, for the books."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (OSError, KeyError):  # a container's user may have no name
        return "command line"


def _print_json(answer: object) -> None:
    print(json.dumps(answer, indent=2, ensure_ascii=False))


@app.command("list")
def list_(
    project: Project,
    tag: Annotated[str | None, typer.Option(help="Only versions with this tag.")] = None,
    state: Annotated[str | None, typer.Option(help="Only champion, retired, refused, candidate or deleted.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the versions, newest first."""
    from backend.database import project_named, reading
    from backend.learning import registry

    with reading() as session:
        found = registry.versions(session, project_named(session, project).id, tag, state)
    _list(found, as_json)


def _list(found: list["ModelVersion"], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "name": version.name,
            "state": version.state,
            "made": version.created_at.isoformat(timespec="seconds"),
            "labels": version.lineage.get("labels"),
            "accuracy": version.metrics.get("accuracy"),
            "source": version.metrics.get("source"),
            "method": version.lineage.get("method"),
            "tags": list(version.tags),
        }
        for version in found
    ]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.3f} ({row['source']})"
        labels = "-" if row["labels"] is None else row["labels"]
        print(
            f"{row['name']:<6} {row['state']:<9} {row['made']}  labels {labels:<6} accuracy {accuracy:<24} "
            f"{row['method'] or '-'}  {' '.join(row['tags'])}".rstrip()
        )


@app.command()
def search(
    project: Project,
    terms: Annotated[list[str], typer.Argument(help="Words, or accuracy>0.8, labels>=100, made>2026-11, tag words.")],
    as_json: AsJson = False,
) -> None:
    """List the versions of which every term is true, newest first."""
    from backend.database import project_named, reading
    from backend.learning.search import search as find

    with reading() as session:
        found = find(session, project_named(session, project).id, terms)
    _list(found, as_json)


@app.command()
def layers(
    project: Project,
    version: Version = "champion",
    svg: Annotated[Path | None, typer.Option(help="Write the drawing to this file.")] = None,
) -> None:
    """Draw a version's network, a box a layer."""
    from backend.database import project_named, reading
    from backend.learning import drawing, registry

    with reading() as session:
        found = registry.find(session, project_named(session, project).id, version)
    drawn = drawing.layers(registry.encoder_path(found.encoder_digest), registry.load_head(found))
    if svg is None:
        print(drawing.text(drawn))
    else:
        svg.write_text(drawing.svg(drawn))
        print(svg)


@app.command()
def show(project: Project, version: Version = "champion", as_json: AsJson = False) -> None:
    """Print a version's card: who made it, when, from what, how good it is, what it is used for."""
    from backend.database import project_named, reading
    from backend.learning import card, registry

    with reading() as session:
        found = card.card(session, registry.find(session, project_named(session, project).id, version))
    if as_json:
        _print_json(found)
    else:
        print(card.render(found))


@app.command()
def compare(project: Project, new: Version, current: Version = "champion", as_json: AsJson = False) -> None:
    """Say which of two versions is better on the holdout as it is labelled now, and how sure that is."""
    from backend.database import project_named, reading
    from backend.learning import registry
    from backend.rounds import comparison

    with reading() as session:
        project_id = project_named(session, project).id
        one, other = registry.find(session, project_id, new), registry.find(session, project_id, current)
        found = comparison.compare(session, one, other)
    if as_json:
        _print_json({"new": one.name, "current": other.name, **(asdict(found) if found else {"comparison": None})})
    elif found is None:
        print(
            f"{one.name} and {other.name} cannot be compared: the holdout has fewer than 10 labels that both know, or "
            "they answer different kinds of questions."
        )
    else:
        whole = found.comparison
        print(
            f"{one.name} against {other.name} on {whole.labels} labels of the holdout: {whole.gap}; "
            f"{whole.won} items won, {whole.lost} lost, p(worse by chance) {whole.p_worse:.3f}: "
            f"{one.name} is {'worse' if whole.is_worse else 'not shown to be worse'}."
        )
        for name, gap in found.others:
            print(f"  {name:<18} {gap.value:+.3f} (95 %: {gap.interval.low:+.3f} to {gap.interval.high:+.3f})")
        for kind in found.classes:
            gap = kind.recall
            print(
                f"  recall of {kind.name} ({kind.labels}): {gap.value:+.3f} (95 %: {gap.interval.low:+.3f} to "
                f"{gap.interval.high:+.3f}){', beyond chance' if kind.is_real else ''}"
            )


@app.command()
def promote(project: Project, version: Version) -> None:
    """Let a version answer from now on. Running web processes follow with the next request."""
    from backend.database import project_named, transaction
    from backend.learning import registry
    from backend.rounds import changes

    with transaction() as session:
        named = project_named(session, project)
        found = registry.find(session, named.id, version)
        registry.promote(session, found, actor())
        changes.follow_champion(session, named)
    print(f"{found.name} is the champion of {project}")


@app.command()
def rollback(project: Project) -> None:
    """Go back to the version that answered before the champion; again, to the one before that."""
    from backend.database import project_named, transaction
    from backend.learning import registry
    from backend.rounds import changes

    with transaction() as session:
        named = project_named(session, project)
        left, found = registry.rollback(session, named.id, actor())
        changes.follow_champion(session, named)
    print(f"{found.name} is the champion of {project} again; {left.name} has retired")


@app.command()
def challenge(
    project: Project,
    version: Version,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="End it.")] = False,
) -> None:
    """Let a version score beside the champion; `challenger` in the project's YAML says for which share of the items."""
    from backend.database import project_named, transaction
    from backend.learning import challenge as challenging
    from backend.learning import registry

    with transaction() as session:
        found = registry.find(session, project_named(session, project).id, version)
        if withdraw:
            challenging.withdraw(session, found, actor())
        else:
            challenging.challenge(session, found, actor())
    print(f"{found.name} {'challenges no longer' if withdraw else f'challenges the champion of {project}'}")


@app.command()
def tag(
    project: Project,
    version: Version,
    name: Annotated[str, typer.Argument(help="A word, such as shipped.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
) -> None:
    """Tag a version; find it again with list --tag."""
    from backend.database import project_named, transaction
    from backend.learning import registry

    with transaction() as session:
        found = registry.find(session, project_named(session, project).id, version)
        registry.tag(session, found, name, actor(), remove=remove)
    print(f"{found.name}: {' '.join(found.tags) or 'no tags'}")


@app.command()
def delete(project: Project, version: Version) -> None:
    """Delete a version's head. What is in use is refused; the record and the snapshot stay."""
    from backend.database import project_named, transaction
    from backend.learning import registry

    with transaction() as session:
        found = registry.find(session, project_named(session, project).id, version)
        is_gone = registry.delete(session, found, actor())
    print(f"{found.name} is deleted; {'its head is gone' if is_gone else 'an equal version keeps the head'}")


@app.command()
def export(
    project: Project,
    version: Version,
    out: Annotated[Path, typer.Option(help="A new folder, or a new .zip.")],
) -> None:
    """Write a version's head, card and snapshot, with a list of their sha256."""
    from backend.database import project_named, reading
    from backend.learning import registry
    from backend.learning.export import export as write

    with reading() as session:
        path = write(session, registry.find(session, project_named(session, project).id, version), out)
    print(path)


@app.command()
def verify(project: Project, version: Version = "champion", as_json: AsJson = False) -> None:
    """Fit a version's head again from its record, its snapshot and the stored embeddings, and compare."""
    from backend.database import project_named, reading
    from backend.learning import registry
    from backend.rounds import rebuild

    with reading() as session:
        found = registry.find(session, project_named(session, project).id, version)
    verdict = rebuild.verify(found)
    if as_json:
        _print_json({"version": found.name, **asdict(verdict)})
    else:
        gap = "the old head is gone" if verdict.largest_gap is None else f"largest gap {verdict.largest_gap:.2g}"
        print(f"{found.name}: {verdict.answer} ({gap}, on the {verdict.labels} items it was trained on)")
        print(f"  recorded {verdict.recorded}\n  rebuilt  {verdict.rebuilt}")
        if verdict.changed:
            print(f"  not as in the record: {', '.join(verdict.changed)}")
    raise typer.Exit(1 if verdict.answer == "different" else 0)


@app.command()
def mirror(project: Project, as_json: AsJson = False) -> None:
    """Bring MLflow (MLFLOW_TRACKING_URI) up to the project's versions, as each round does at its end."""
    from backend.database import project_named, reading
    from backend.errors import MissingSetting
    from backend.rounds.mirror import copy
    from backend.settings import settings

    if not settings().mlflow_tracking_uri:
        raise MissingSetting(name="MLFLOW_TRACKING_URI", mend="Set it to your MLflow server's address.")
    with reading() as session:
        project_id = project_named(session, project).id
    done = copy(project_id)
    if as_json:
        _print_json(asdict(done))
    else:
        print(f"copied {done.copied}, told the state of {done.changed} others")
