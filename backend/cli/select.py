"""nextbatch select: from a pool of addresses to the items to label, in one command."""

import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.cli.progress import progress, say

if TYPE_CHECKING:
    from backend.selection import Selection

Show = Callable[[int, int, str], None]


def select(
    pool: Annotated[
        list[str] | None,
        typer.Argument(
            help="A folder, s3://bucket/prefix, ftp://host/folder, a manifest (.csv, .tsv, .jsonl, .parquet; also by "
            "http, s3 or ftp), or single addresses and files; - reads addresses from stdin, one a line."
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, max=100_000, help="How many items to choose.")] = 100,
    strategy: Annotated[str, typer.Option(help="How to choose; docs/strategies.md describes each.")] = "auto",
    parameter: Annotated[
        list[str] | None, typer.Option(help="A strategy's parameter as name=value; may be repeated.")
    ] = None,
    kind: Annotated[str, typer.Option(help="image or text.")] = "image",
    project: Annotated[
        str | None, typer.Option(help="Choose from a project's pool, with the labels it has, instead.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Let the nextbatch at this address do it, instead of this machine.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A host in a private range that a manifest may name.")
    ] = None,
    s3_endpoint: Annotated[str | None, typer.Option(help="An S3-compatible store that is not Amazon's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the picks as .jsonl, .csv or .txt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: each pick with score and reason.")] = False,
) -> None:
    """Choose what to label from a pool, and print the addresses, the most useful first.

    Nothing need be set up: items are encoded on this machine, and what is encoded is kept, so the same pool again is
    quick. Without labels the choice covers the pool. For example:

    nextbatch select s3://bucket/photos --budget 1000 --strategy auto
    """
    from backend.rounds.queries import Query

    if (pool is None) == (project is None):
        raise typer.BadParameter("name a pool, or a --project")
    if kind not in ("image", "text"):
        raise typer.BadParameter("choose image or text", param_hint="--kind")
    if out is not None and out.suffix not in _WRITERS:
        raise typer.BadParameter(f"its name must end in one of {', '.join(_WRITERS)}", param_hint="--out")
    query = Query(budget, strategy, _parameters(parameter or ()))
    named = [line.strip() for line in sys.stdin if line.strip()] if pool == ["-"] else pool or []
    if project is None and not named:
        raise typer.BadParameter("nothing was named")
    with progress("items") as show:
        here = _remotely if url is not None else _here
        found = here(named, query, kind, project, allow_host or (), s3_endpoint, url or "", show)
    if found.failed:
        say(f"{found.failed} of {found.items} items could not be read:")
        for line in found.failures:
            say(f"  {line}")
    if found.policy:
        say(found.policy)
    if out is not None:
        _WRITERS[out.suffix](out, found)
        say(f"wrote {len(found.picks)} picks to {out}")
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else _lines(found), end="\n")


def _here(
    named: Sequence[str], query: Any, kind: Any, project: str | None, hosts: Sequence[str], endpoint: str | None,
    _url: str, show: Show,
) -> "Selection":  # fmt: skip
    from backend import selection

    pool = selection.pool_of(named, kind, hosts, endpoint) if project is None else project

    def tell(_step: str, done: int, total: int) -> None:
        if total:
            show(done, total, "")

    return selection.select(pool, query, kind, tell)


def _remotely(
    named: Sequence[str], query: Any, kind: Any, project: str | None, hosts: Sequence[str], endpoint: str | None,
    url: str, show: Show,
) -> "Selection":  # fmt: skip
    """The same by the API. Files and folders are the service's, below its own data root."""
    from backend import selection
    from backend.client import Client, Query
    from backend.errors import QueryFailed

    def tell(one: Query) -> None:
        if one.total:
            show(one.done or 0, one.total, "")

    username, password, token = (os.environ.get(f"NEXTBATCH_{name}", "") for name in ("USERNAME", "PASSWORD", "TOKEN"))
    with Client(url, "" if token else username, "" if token else password, token=token) as client:
        reasons: list[str] = []
        if project is None:
            pool = selection.pool_of(named, kind, hosts, endpoint)
            project = client.make_project(pool.name, kind, pool=pool.section.model_dump(mode="json")).name
            reasons = client.push(project, pool.uris).reasons if pool.uris else []
        asked = client.query(project, query.budget, query.strategy, **query.parameters)
        ended = client.wait_for_query(project, asked.number, 86_400, tell)
        if ended.state != "done":
            raise QueryFailed(number=ended.number, project=project, reason=ended.failure or ended.state)
        counts = client.project(project).counts
        picks = [
            selection.Selected(one.rank, one.uri, one.utility, one.reason, one.prediction)
            for one in client.chosen(project, ended.number)
        ]
    total = sum(vars(counts).values()) - counts.gone
    strategy, policy = ended.chosen or "", ended.policy or ""
    return selection.Selection(project, ended.number, strategy, policy, total, counts.failed, reasons, picks)


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{one!r} is not name=value", param_hint="--parameter")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _lines(found: "Selection") -> str:
    return "\n".join(one.uri for one in found.picks)


def _write_text(path: Path, found: "Selection") -> None:
    path.write_text(_lines(found) + "\n", encoding="utf-8")


def _write_json(path: Path, found: "Selection") -> None:
    path.write_text("".join(json.dumps(vars(one), ensure_ascii=False) + "\n" for one in found.picks), encoding="utf-8")


def _write_csv(path: Path, found: "Selection") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("rank", "uri", "score", "reason", "prediction"))
        table.writerows((one.rank, one.uri, one.score, one.reason, one.prediction) for one in found.picks)


_WRITERS = {".jsonl": _write_json, ".csv": _write_csv, ".txt": _write_text}
