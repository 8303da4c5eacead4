"""`nextbatch seed`: from a YAML to a project in which people can label; done twice, it changes nothing."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.connections import answers
from backend.pool.folders import digits
from backend.processes import free_port, stop, wait_until
from backend.studio.client import Studio
from backend.studio.server import LabelStudioServer
from tests.services import images
from tests.services.images import CACHE
from tests.services.seaweed import S3Server


@pytest.fixture(scope="module")
def pictures(s3_server: S3Server) -> S3Server:
    """An S3 server with 12 digits, and an object that is no image, below one prefix."""
    client = s3_server.client()
    client.create_bucket(Bucket="seeded")
    for place, path in enumerate(images.files(12)):
        client.put_object(Bucket="seeded", Key=f"digits/{place}{path.suffix}", Body=path.read_bytes())
    client.put_object(Bucket="seeded", Key="digits/notes.txt", Body=b"no image")
    return s3_server


@pytest.fixture(scope="module")
def web(server: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web process on a home of its own, for all projects here; the folder of images that it may read."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    assert server.local_files is not None
    images = server.local_files / f"seed-{uuid.uuid4().hex[:8]}"
    shutil.copytree(digits(CACHE).root, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTBATCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("NEXTBATCH_URL", url)
        patch.setenv("NEXTBATCH_WEBHOOK_SECRET", "correct-horse")
        patch.setenv("NEXTBATCH_DATA_ROOT", str(server.local_files))
        patch.setenv("LABEL_STUDIO_URL", server.url)
        patch.setenv("LABEL_STUDIO_API_KEY", server.account.token)
        command([sys.executable, "-m", "backend.cli", "migrate"])
        process = subprocess.Popen([sys.executable, "-m", "backend.cli", "web", "--port", str(port)])
        try:
            assert wait_until(lambda: answers(f"{url}/health"), 120)
            yield str(images)
        finally:
            stop(process)


def command(arguments: list[str], expected: int = 0) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def what_stands(studio: Studio, title: str) -> dict[str, Any]:
    (project,) = [one for one in studio.get("/api/projects/", {"title": title})["results"] if one["title"] == title]
    number = project["id"]
    return {
        "project": number,
        "tasks": project["task_number"],
        "annotations": project["total_annotations_number"],
        "backends": [(one["id"], one["url"]) for one in studio.get("/api/ml/", {"project": number})],
        "webhooks": [
            (one["id"], one["url"], one["headers"])
            for one in studio.get("/api/webhooks/", {"project": number})
            if one["project"] == number
        ],
        "storages": [one["path"] for one in studio.get("/api/storages/localfiles", {"project": number})],
    }


def test_seeding_twice_changes_nothing(web: str, studio: Studio, tmp_path: Path) -> None:
    name = f"digits-{uuid.uuid4().hex[:8]}"
    config = tmp_path / f"{name}.yaml"
    config.write_text(
        f"name: {name}\n"
        f"label_studio: {{title: {name}, labels: ['0','1','2','3','4','5','6','7','8','9']}}\n"
        f"pool: {{source: folder, path: {web}/train, max_items: 40, holdout_path: {web}/test, holdout_items: 10}}\n"
    )
    seed = [sys.executable, "-m", "backend.cli", "seed", str(config)]

    first = command(seed)
    stands = what_stands(studio, name)
    second = command(seed)

    assert "50 items (50 new), 10 of them holdout; round 1" in first
    assert "50 items (0 new)" in second
    assert what_stands(studio, name) == stands
    assert (stands["tasks"], stands["annotations"]) == (50, 10)
    assert len(stands["backends"]) == len(stands["webhooks"]) == 1
    assert stands["webhooks"][0][2] == {"X-Nextbatch-Secret": "correct-horse"}


@pytest.mark.parametrize(("publish", "tasks"), [("reorder", 22), ("create", 10)])
def test_a_prefix_of_a_bucket_is_seeded_like_a_folder(
    web: str, pictures: S3Server, studio: Studio, tmp_path: Path, publish: str, tasks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in pictures.environment.items():
        monkeypatch.setenv(name, value)
    name = f"pictures-{uuid.uuid4().hex[:8]}"
    config = tmp_path / f"{name}.yaml"
    config.write_text(
        f"name: {name}\npublish: {publish}\n"
        f"label_studio: {{title: {name}, labels: ['0','1','2','3','4','5','6','7','8','9']}}\n"
        f"pool: {{source: s3, path: 's3://seeded/digits', allow_buckets: [seeded],"
        f" s3_endpoint: {pictures.endpoint}, holdout_path: {web}/test, holdout_items: 10}}\n"
    )
    seed = [sys.executable, "-m", "backend.cli", "seed", str(config)]

    first = command(seed)
    stands = what_stands(studio, name)
    second = command(seed)

    assert "22 items (22 new), 10 of them holdout; round 1" in first
    assert "left out 1: not named as an image" in first
    assert "Add Source Storage" in first
    assert "22 items (0 new)" in second
    assert what_stands(studio, name) == stands
    assert (stands["tasks"], stands["annotations"]) == (tasks, 10)


def test_a_manifest_is_seeded_with_its_columns(web: str, studio: Studio, tmp_path: Path) -> None:
    name = f"listed-{uuid.uuid4().hex[:8]}"
    root = Path(os.environ["NEXTBATCH_DATA_ROOT"])
    pictures = sorted(Path(web, "train").rglob("*.png"))[:3]
    lines = [f"/data/local-files/?d={path.relative_to(root)},camera {place}" for place, path in enumerate(pictures)]
    Path(web, "list.csv").write_text("\n".join(["image,camera", *lines, "a bad line"]))
    config = tmp_path / f"{name}.yaml"
    config.write_text(
        f"name: {name}\n"
        f"label_studio: {{title: {name}, labels: ['0','1','2','3','4','5','6','7','8','9']}}\n"
        f"pool: {{source: manifest, path: {web}/list.csv, uri_field: image}}\n"
    )

    said = command([sys.executable, "-m", "backend.cli", "seed", str(config)])

    assert "3 items (3 new)" in said
    assert "(line 5)" in said
    stands = what_stands(studio, name)
    assert [Path(web, "train") in (path, *path.parents) for path in map(Path, stands["storages"])] == [True]
    tasks = studio.get("/api/tasks/", {"project": stands["project"], "fields": "all"})["tasks"]
    assert sorted((task["data"]["camera"], task["data"]["image"]) for task in tasks) == [
        (line.split(",")[1], line.split(",")[0]) for line in lines
    ]


@pytest.mark.parametrize("source", ["folder", "manifest"])
def test_texts_are_seeded_by_address_or_as_they_are(web: str, studio: Studio, tmp_path: Path, source: str) -> None:
    name = f"mails-{uuid.uuid4().hex[:8]}"
    for place in ("pool/1.txt", "pool/2.txt", "labelled/spam/3.txt", "labelled/ham/4.txt"):
        path = Path(web, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {place}, with <tags>")
    Path(web, "mails.csv").write_text('body,sender\n"Dear all,\nsee below",ann\n/pool/1.txt is no address here,bob\n')
    path = {"folder": f"{web}/pool", "manifest": f"{web}/mails.csv, uri_field: body"}[source]
    config = tmp_path / f"{name}.yaml"
    config.write_text(
        f"name: {name}\nlabel_studio: {{title: {name}, labels: [ham, spam], kind: text}}\n"
        f"pool: {{source: {source}, path: {path}, holdout_path: {web}/labelled}}\n"
    )
    seed = [sys.executable, "-m", "backend.cli", "seed", str(config)]

    first = command(seed)
    stands = what_stands(studio, name)
    second = command(seed)

    assert "4 items (4 new), 2 of them holdout; round 1" in first
    assert "4 items (0 new)" in second
    assert what_stands(studio, name) == stands
    assert (stands["tasks"], stands["annotations"], len(stands["backends"])) == (4, 2, 1)
    rows = studio.get("/api/tasks/", {"project": stands["project"], "fields": "all", "resolve_uri": "false"})["tasks"]
    shown = sorted(row["data"]["text"] for row in rows)
    if source == "folder":
        assert all(text.startswith("/data/local-files/?d=") for text in shown)
    else:
        assert shown == [
            "/pool/1.txt is no address here",
            "Dear all,\nsee below",
            "the text of labelled/ham/4.txt, with <tags>",
            "the text of labelled/spam/3.txt, with <tags>",
        ]
        assert {row["data"].get("sender") for row in rows} == {"ann", "bob", None}


def test_a_wrong_key_gives_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("name: wrong\nbatch:\n  sise: 50\n")

    said = command([sys.executable, "-m", "backend.cli", "seed", str(config)], expected=1)

    assert "wrong.yaml:3" in said
    assert "size" in said
    assert "Traceback" not in said
