"""nextbatch data: what models were trained on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Compare and export the data that models were trained on.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(help="The project's name, as in its YAML.")]
Data = Annotated[str, typer.Argument(help="A version, such as v7, or champion; or a snapshot's digest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_SHOWN = 20  # ids printed of a list; --json has all


@app.command()
def diff(project: Project, before: Data, after: Data = "champion", as_json: AsJson = False) -> None:
    """Show what was added, removed and relabelled from one data snapshot to another, and the classes' shares."""
    from backend.database import project_named, reading
    from backend.learning import data

    with reading() as session:
        project_id = project_named(session, project).id
        found = data.differ(*(data.open_snapshot(session, project_id, name) for name in (before, after)))
    if as_json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    print(f"{found.before[:12]} → {found.after[:12]}")
    if found.is_config_changed:
        print("the label configuration changed")
    for what, ids in (
        ("added", found.added),
        ("removed", found.removed),
        ("relabelled", tuple(f"{one.item_id} ({one.before} → {one.after})" for one in found.relabelled)),
        ("moved between train and holdout", found.moved),
        ("with other content", found.recontented),
    ):
        more = ", …" if len(ids) > _SHOWN else ""
        print(f"{what}: {len(ids)}{'  ' if ids else ''}{', '.join(ids[:_SHOWN])}{more}")
    width = max((len(one.label) for one in found.classes), default=0)
    for one in found.classes:
        print(
            f"  {one.label:<{width}}  {one.before:>6} → {one.after:<6}"
            f"  {one.share_before:6.1%} → {one.share_after:6.1%}"
        )


@app.command()
def export(
    project: Project, version: Data, out: Annotated[Path, typer.Option(help="A new .parquet or .csv file.")]
) -> None:
    """Write the labels that a version was trained on as a table."""
    from backend.database import project_named, reading
    from backend.learning import data

    with reading() as session:
        snapshot = data.open_snapshot(session, project_named(session, project).id, version)
    print(f"{data.write_table(snapshot, out)}: {len(snapshot.rows)} rows")


@app.command()
def saw(
    project: Project,
    annotation_id: Annotated[int, typer.Argument(help="Label Studio's id of the annotation.")],
    as_json: AsJson = False,
) -> None:
    """List the versions whose data holds an annotation, and as what."""
    from backend.database import project_named, reading
    from backend.learning import data

    with reading() as session:
        found = data.saw(session, project_named(session, project).id, str(annotation_id))
    if as_json:
        answer = [{"version": version.name, "rows": [asdict(row) for row in rows]} for version, rows in found]
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    if not found:
        print(f"no version of {project} saw annotation {annotation_id}")
    for version, rows in found:
        for row in rows:
            print(
                f"{version.name:<6} {version.state:<9} item {row.item_id}  {row.label}  {row.split}  by {row.annotator}"
            )
