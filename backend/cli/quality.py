"""nextbatch models accepted, nextbatch data check: what people did with predictions, and labels that look wrong."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from backend.cli.models import AsJson, Project


def accepted(project: Project, as_json: AsJson = False) -> None:
    """Show how often people accepted, changed or skipped what was predicted, per version and class, and how fast."""
    from backend.database import project_named, reading
    from backend.monitoring.acceptance import read, tabulate

    with reading() as session:
        answers, _ = read(session, project_named(session, project).id)
    rows = tabulate(answers)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    for row in rows:
        name = f"  {row.label}" if row.label else row.version
        seconds = "" if row.median_s is None else f"  {row.median_s:.1f} s"
        print(
            f"{name:<20} accepted {row.share:.0%} (95 %: {row.low:.0%} to {row.high:.0%}) of "
            f"{row.accepted + row.changed}, {row.changed} changed, {row.skipped} skipped{seconds}"
        )


def check(
    project: Project,
    most: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List labels that the model contradicts, the least believed first; `round --check-labels` publishes them."""
    from backend.database import project_named, reading
    from backend.learning import registry
    from backend.pool.catalog import labelled
    from backend.rounds import changes, checks
    from backend.rounds.encoding import open_embeddings
    from backend.studio.labels import LabelTask

    with reading() as session:
        named = project_named(session, project)
        known = labelled(session, named.id, LabelTask.parse(named.label_config).question)
    embeddings = open_embeddings(named)
    with reading() as session:
        version = changes.choosing(session, named.id, embeddings.digest)
    head = None if version is None else registry.load_head(version)
    penalty = 0.0 if version is None else float(version.lineage["penalty"])
    found = checks.find_suspects(known, head, embeddings, penalty, named.settings.seed)[:most]
    rows = [{"item": one.item.item_id, "label": one.item.label, "why": one.reason} for one in found]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(f"item {row['item']}: {row['why']}")
    print(f"{len(rows)} of {len(known)} labels")
