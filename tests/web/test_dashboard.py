"""The pages: whole without script, nothing from elsewhere, and nothing of an item's data is ever markup."""

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx
import numpy as np
import pytest
from PIL import Image

from backend.database import Batch, Item, Pick, Project, Round, now, transaction
from backend.pool.decode import decode
from backend.web import thumbnails
from backend.web.views.task import MOST_LISTED
from tests.web.conftest import Web, make_project, rounds, serving
from tests.web.played import BATCH, HOSTILE, Played, play
from tests.web.test_server import HEAVY, TELLING

PAGES = ("", "/learning", "/batch", "/models", "/health", "/map", "/rounds/6/log")
TEXT_CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="choice" toName="text" choice="single"><Choice value="cold"/><Choice value="warm"/></Choices>
</View>"""
SECRETS = ("hunter2", "deadbeef", "studio-api-key", "the-webhook-secret")


class Document(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [value for _, attrs in self.elements for name, value in attrs.items() if name in names and value]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def played(sqlite_home: Path, root: Path) -> Played:
    return play(root)


@pytest.fixture(scope="module")
def web(sqlite_home: Path, root: Path, played: Played) -> Iterator[Web]:
    """The web process over a project that was played, with items that mean harm, and secrets to keep."""
    with serving(
        sqlite_home,
        TELLING,
        NEXTBATCH_DATA_ROOT=str(root),
        NEXTBATCH_WEBHOOK_SECRET="the-webhook-secret",
        LABEL_STUDIO_URL="https://studio.example",
        LABEL_STUDIO_API_KEY="studio-api-key",
    ) as running:
        yield running


def pages(web: Web, played: Played) -> Iterator[tuple[str, httpx.Response, Document]]:
    for path in ["/projects", *(f"/projects/{played.name}{page}" for page in PAGES), "/projects/nowhere"]:
        answer = web.client.get(path, headers={"Accept": "text/html"})
        yield path, answer, Document(answer.text)


def test_nothing_in_an_items_data_becomes_markup(web: Web, played: Played) -> None:
    seen = ""

    for path, answer, page in pages(web, played):
        seen += page.text
        assert HOSTILE not in answer.text, path
        scripts = [attrs.get("src") for tag, attrs in page.elements if tag == "script"]
        assert scripts[0] == "/static/live.js", path
        assert set(scripts) <= {"/static/live.js", "/static/map.js"}, path
        names = {name for _, attrs in page.elements for name in attrs}
        assert not any(name.startswith("on") or name == "style" for name in names), path
        for link in page.values("href", "src", "action"):
            assert re.match(r"/|#|https://studio\.example/projects/", link), link

    assert seen.count(HOSTILE) == 4  # the address of an item, a reason, an alert and a log: shown, as text


def test_no_page_shows_a_secret(web: Web, played: Played) -> None:
    for path, answer, _ in pages(web, played):
        assert not any(secret in answer.text for secret in SECRETS), path


def test_pages_are_small_strict_and_complete(web: Web, played: Played) -> None:
    for path, answer, page in pages(web, played):
        assert answer.status_code == (404 if path.endswith("nowhere") else 200)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        ids = page.values("id")
        assert len(ids) == len(set(ids)), path
        assert [tag for tag, _ in page.elements].count("h1") == 1
        size = len(answer.content)
        for link in page.values("src", "href"):
            if link.startswith("/static/"):
                part = web.client.get(urljoin(web.url, link))
                assert part.status_code == 200
                size += len(part.content)
        assert size < 80_000, path


def test_the_loop_says_where_it_is_and_what_comes_next(web: Web, played: Played) -> None:
    page = Document(web.client.get(f"/projects/{played.name}").text)

    assert f"{BATCH - 4} items wait for a label" in page.text
    assert "The next round starts after 19 more labels and 5 s of quiet" in page.text
    assert "50 more labels promise" in page.text
    bars = [attrs for tag, attrs in page.elements if tag == "rect" and attrs.get("height") == "6"][1:]
    assert sum(float(attrs["width"] or 0) for attrs in bars) == pytest.approx(100, abs=0.01)


def test_a_running_round_shows_its_step_and_progress(web: Web, played: Played) -> None:
    project = make_project()
    with transaction() as session:
        session.add(
            Round(
                project_id=project.id,
                number=1,
                workflow_id=f"shown:{project.id}",
                state="running",
                step="encode",
                progress={"done": 12, "total": 48},
                started_at=now(),
            )
        )

    page = Document(web.client.get(f"/projects/{project.name}").text)

    assert "encode: 12 of 48" in page.text
    assert [attrs["class"] for tag, attrs in page.elements if attrs.get("aria-current") == "step"] == ["current"]
    assert ("role", "progressbar") in [one for _, attrs in page.elements for one in attrs.items()]


def test_an_empty_project_says_what_to_do(web: Web) -> None:
    project = make_project()

    texts = [Document(web.client.get(f"/projects/{project.name}{page}").text).text for page in PAGES]

    assert "There is nothing to label yet" in texts[0]
    assert "None was run on this project's labels" in texts[1]
    assert "There is no batch yet" in texts[2]
    assert "There is no version yet" in texts[3]
    assert "Label Studio has told us nothing yet" in texts[4]


def test_a_thumbnail_is_the_image_that_the_model_sees_written_anew(web: Web, played: Played, root: Path) -> None:
    address = f"/projects/{played.name}/items/{played.picked[0]}/thumbnail"

    answer = web.client.get(address)
    again = web.client.get(address, headers={"If-None-Match": answer.headers["ETag"]})

    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    seen = decode((root / played.name / "000.jpg").read_bytes(), thumbnails.SIDE).astype(int)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert "private" in answer.headers["Cache-Control"]
    assert shown.shape == seen.shape
    assert np.abs(shown - seen).mean() < 4
    assert len(answer.content) < 30_000
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("place", [2, 3, 5])
def test_a_thumbnail_of_an_address_that_means_harm_is_none(web: Web, played: Played, place: int) -> None:
    answer = web.client.get(f"/projects/{played.name}/items/{played.picked[place]}/thumbnail")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert not any(secret in answer.text for secret in SECRETS)


def test_a_drawing_or_a_file_outside_the_root_is_no_thumbnail(web: Web, root: Path, tmp_path: Path) -> None:
    project = make_project()
    (root / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (root / "way-out.png").symlink_to(tmp_path / "outside.png")
    ids = [add(project, uri) for uri in ("drawing.svg", "way-out.png", f"file://{tmp_path}/outside.png")]

    answers = [web.client.get(f"/projects/{project.name}/items/{item_id}/thumbnail") for item_id in ids]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert not any("<svg" in answer.text for answer in answers)


def test_a_text_is_shown_as_text(web: Web) -> None:
    project = make_project()
    text = f"The lake froze over. {HOSTILE}"
    with transaction() as session:
        stored = session.get_one(Project, project.id)
        stored.label_config = TEXT_CONFIG
        item = Item(project_id=project.id, key="t", uri=text, state="encoded")
        round_ = Round(project_id=project.id, number=1, workflow_id=f"text:{project.id}", state="done")
        session.add_all([item, round_])
        session.flush()
        batch = Batch(project_id=project.id, round_id=round_.id, number=1, version="v0+b1", strategy="random")
        session.add(batch)
        session.flush()
        session.add(Pick(batch_id=batch.id, rank=0, item_id=item.id, reason="drawn at random"))

    page = Document(web.client.get(f"/projects/{project.name}/batch").text)

    assert text in page.text
    assert "img" not in [tag for tag, _ in page.elements]
    assert web.client.get(f"/projects/{project.name}/items/{item.id}/thumbnail").status_code == 404


def test_lists_of_the_api_cut_long_texts(web: Web) -> None:
    project = make_project()
    with transaction() as session:
        session.get_one(Project, project.id).label_config = TEXT_CONFIG
        session.add_all(
            Item(project_id=project.id, key=key, uri=uri, state="encoded")
            for key, uri in (("l", "x" * 50_000), ("s", "y"))
        )

    listed = web.client.get(f"/api/v1/projects/{project.name}/items").json()["items"]

    assert [len(one["uri"]) for one in listed] == [MOST_LISTED + 1, 1]


def test_items_of_another_project_have_no_thumbnail_here(web: Web, played: Played) -> None:
    other = make_project()

    for item_id in (played.picked[0], 2**63, 10**30):
        assert web.client.get(f"/projects/{other.name}/items/{item_id}/thumbnail").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
    ],
)
def test_the_button_works_from_our_own_page_only(web: Web, headers: dict[str, str], status: int) -> None:
    project = make_project()

    answer = web.client.post(f"/projects/{project.name}/rounds", headers=headers, data=token_of(web, project.name))

    assert answer.status_code == status
    assert [one.trigger for one in rounds(project)] == (["dashboard"] if status == 303 else [])


def test_our_own_origin_is_ours(web: Web) -> None:
    project = make_project()
    token = token_of(web, project.name)

    answer = web.client.post(f"/projects/{project.name}/rounds", headers={"Origin": web.url}, data=token)

    assert answer.status_code == 303


def test_the_random_arm_stands_beside_the_curve_and_backtests_are_found(web: Web, played: Played) -> None:
    loop, learning = (Document(web.client.get(f"/projects/{played.name}{end}").text) for end in ("", "/learning"))

    for page in (loop, learning):
        assert len([1 for tag, attrs in page.elements if tag == "polyline" and attrs["class"] == "trace base"]) >= 1
        assert "as many labels drawn at random" in page.text
    told = " ".join(learning.text.split())
    traces = [attrs["class"] for tag, attrs in learning.elements if tag == "polyline"]
    assert f"/projects/{played.name}/learning#backtests" in loop.values("href")
    assert "margin_clusters is better than random." in told
    assert "margin_clusters +3.1 % +2.1 to +4.1" in told
    assert traces[-3:] == ["trace base", "trace a0", "trace a1"]


def test_the_address_of_the_service_leads_browsers_to_the_pages_and_label_studio_to_its_health(web: Web) -> None:
    person = web.client.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    machine = web.client.get("/")

    assert person.headers["Location"].endswith("projects")
    assert machine.json()["status"] == "UP"


def test_nothing_heavy_is_imported_for_the_pages(web: Web, played: Played) -> None:
    for _, answer, _ in pages(web, played):
        assert answer.status_code in (200, 404)
    web.client.get(f"/projects/{played.name}/items/{played.picked[0]}/thumbnail")

    loaded = set(web.client.get("/modules").json())

    assert loaded & HEAVY == set()


def test_no_page_opens_without_credentials(sqlite_home: Path, played: Played) -> None:
    with serving(sqlite_home, NEXTBATCH_USERNAME="ann", NEXTBATCH_PASSWORD="secret") as guarded:
        thumbnail = f"/projects/{played.name}/items/{played.picked[0]}/thumbnail"
        for path in ["/projects", *(f"/projects/{played.name}{page}" for page in PAGES), "/static/live.js", thumbnail]:
            assert guarded.client.get(path).status_code == 401, path
        refused = guarded.client.post(f"/projects/{played.name}/rounds", headers={"Sec-Fetch-Site": "same-origin"})
        opened = guarded.client.get(f"/projects/{played.name}", auth=("ann", "secret"))

    assert (refused.status_code, opened.status_code) == (401, 200)


def token_of(web: Web, name: str) -> dict[str, str]:
    """What a form on the project's page carries; the client keeps the session's cookie."""
    page = Document(web.client.get(f"/projects/{name}").text)
    return {"token": next(attrs["value"] or "" for _, attrs in page.elements if attrs.get("name") == "token")}


def add(project: Project, uri: str) -> int:
    with transaction() as session:
        item = Item(project_id=project.id, key=uri[-40:], uri=uri, state="encoded")
        session.add(item)
        session.flush()
        return item.id
