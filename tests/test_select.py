"""From a pool to the items to label in one command, with nothing set up before."""

import csv
import json
from pathlib import Path
from urllib.parse import unquote

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from backend import selection
from backend.cli import app
from backend.database import Round, reading
from backend.errors import QueryFailed
from backend.pool.folders import digits
from backend.rounds import round as the_round
from backend.rounds.queries import Query
from backend.selection import pool_of
from tests.conftest import forget_process_state
from tests.services import ftp
from tests.services.images import CACHE
from tests.services.seaweed import S3Server


@pytest.fixture
def pictures(home: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 24 digits and one file that is none; a home with nothing but an encoder's file."""
    monkeypatch.delenv("NEXTBATCH_DATA_ROOT", raising=False)
    (home / "encoders").symlink_to(encoders)
    monkeypatch.setenv("NEXTBATCH_PRECISION", "fp32")
    forget_process_state()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, path in enumerate(digits(CACHE).train.paths[::54][:24]):
        (folder / f"{number:02} ä.png").write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_one_command_chooses_from_a_folder_and_again_without_encoding(pictures: Path, tmp_path: Path) -> None:
    run, out = CliRunner().invoke, tmp_path / "picks.csv"

    first = run(app, ["select", str(pictures), "--budget", "6", "--json", "--out", str(out)])
    again = run(app, ["select", str(pictures), "--budget", "30", "--strategy", "random"])
    wrong = run(app, ["select", str(pictures), "--strategy", "margn"])
    odd = run(app, ["select", str(pictures), "--strategy", "random", "--parameter", "no_such=1"])

    found = json.loads(first.stdout[first.stdout.index("{\n") :])
    uris = [pick["uri"] for pick in found["picks"]]
    assert (found["items"], found["failed"], len(set(uris))) == (25, 1, 6)
    assert all(Path(uri).parent == pictures and Path(uri).exists() for uri in uris)
    assert all(pick["reason"] for pick in found["picks"])
    assert [row["uri"] for row in csv.DictReader(out.open(encoding="utf-8"))] == uris
    shown = [line for line in again.stdout.splitlines() if line.startswith(str(pictures))]
    assert sorted(shown) == sorted(map(str, pictures.glob("*ä.png")))
    assert "'margn'" in str(wrong.exception)
    assert isinstance(odd.exception, QueryFailed)
    assert "no_such" in str(odd.exception)


def test_addresses_files_and_manifests_are_pools_too(pictures: Path, tmp_path: Path) -> None:
    files = sorted(map(str, pictures.glob("*ä.png")))[:5]
    manifest = pictures / "pool.csv"
    manifest.write_text("uri\n" + "\n".join(f'"{file}"' for file in files[:3]), encoding="utf-8")

    by_file = selection.select(pool_of(files, "image"), Query(3, "k_center_greedy"))
    by_manifest = selection.select(pool_of([str(manifest)], "image"), Query(9, "random"))

    assert len(by_file.picks) == 3
    assert {pick.uri for pick in by_file.picks} < set(files)
    assert {pick.uri for pick in by_manifest.picks} == set(files[:3])


@pytest.mark.parametrize("scheme", ["s3", "ftp"])
def test_a_prefix_and_a_remote_folder_are_pools_and_later_only_listed(
    pictures: Path, s3: S3Server, scheme: str
) -> None:
    names, run = sorted(path.name for path in pictures.glob("*ä.png")), CliRunner().invoke
    bucket = s3.client()
    if scheme == "s3":
        bucket.create_bucket(Bucket="select")
        for name in (*names, "broken.png"):
            bucket.put_object(Bucket="select", Key=f"photos/{name}", Body=(pictures / name).read_bytes())
        bucket.put_object(Bucket="select", Key="other/99.png", Body=b"beside the prefix")
    with ftp.running(pictures.parent) as server:
        named = {"s3": "s3://select/photos", "ftp": f"{server.url}/pictures"}[scheme]
        asked = ["select", named, "--json", "--s3-endpoint", s3.endpoint, "--strategy", "random", "--budget"]

        first, fetched = run(app, [*asked, "5"]), server.count("RETR")
        again = run(app, [*asked, "99"])

    found, whole = (json.loads(one.stdout[one.stdout.index("{\n") :]) for one in (first, again))
    assert (found["items"], found["failed"], len(found["picks"])) == (25, 1, 5)
    assert sorted(unquote(pick["uri"]).rpartition("/")[2] for pick in whole["picks"]) == names
    assert all(pick["uri"].startswith(f"{named}/") for pick in whole["picks"])
    assert (fetched, server.count("RETR")) == ((25, 25) if scheme == "ftp" else (0, 0))


@pytest.mark.parametrize(
    ("named", "source", "buckets", "hosts"),
    [
        (["s3://bucket/photos/"], "s3", ("bucket/photos",), ()),
        (["s3://bucket"], "s3", ("bucket",), ()),
        (["s3://bucket/a/1.jpg", "s3://bucket/a/2.jpg"], "api", ("bucket/a",), ()),
        (["s3://bucket/pool.parquet"], "manifest", ("bucket",), ()),
        (["ftp://user@box:2121/pics"], "ftp", (), ("box:2121",)),
        (["http://box/pool.csv"], "manifest", (), ("box",)),
        (["https://a.example/1.jpg", "http://b.example:81/2.jpg"], "api", (), ("a.example", "b.example:81")),
    ],
)
def test_what_is_named_may_be_read_and_nothing_else(
    named: list[str], source: str, buckets: tuple[str, ...], hosts: tuple[str, ...]
) -> None:
    pool = pool_of(named, "image")

    assert (pool.section.source, pool.section.allow_buckets, pool.section.allow_hosts) == (source, buckets, hosts)
    assert pool.root is None
    assert pool.name == pool_of(named, "image").name


def test_a_selection_that_was_cut_short_is_no_wedge(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_project: int, _number: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(the_round, "choose_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            selection.select(pool_of([str(pictures)], "image"), Query(3))
    found = selection.select(pool_of([str(pictures)], "image"), Query(3))

    assert (found.query, len(found.picks)) == (2, 3)
    with reading() as session:
        ends = session.execute(sa.select(Round.state, Round.failure).order_by(Round.number)).all()
    assert [tuple(end) for end in ends] == [("failed", "its process ended"), ("done", None)]
