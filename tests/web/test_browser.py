"""The pages in a real chromium: no error on the console, nothing that axe-core minds, nothing cut off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database import Round, now, transaction
from tests.web.conftest import Web, serving
from tests.web.played import BATCH, VERSIONS, Played, play, with_answers, with_map, with_umap

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install nextbatch[test]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing: pip install nextbatch[test]")

PAGES = (
    "/projects",
    "/projects/{}",
    "/projects/{}/learning",
    "/projects/{}/batch",
    "/projects/{}/map",
    "/projects/{}/models",
    "/projects/{}/models/compare?one=v6&other=v5",
    "/projects/{}/models/change?to=v4",
    "/projects/{}/health",
    "/projects/{}/rounds/6/log",
    "/projects/{}/settings",
    "/login",
    "/api",
)


PATIENCE_S = 120


@pytest.fixture(scope="module")
def played(sqlite_home: Path) -> Played:
    played = play(sqlite_home / "data", hostile=False)
    with_answers(played)
    with_umap(played, with_map(played))
    return played


@pytest.fixture(scope="module")
def web(sqlite_home: Path, played: Played) -> Iterator[Web]:
    with serving(sqlite_home, NEXTBATCH_DATA_ROOT=str(sqlite_home / "data")) as running:
        yield running


@pytest.fixture(params=["light", "dark"])
def page(browser: "sync_api.Browser", web: Web, request: pytest.FixtureRequest) -> "Iterator[sync_api.Page]":
    """A page on a telephone's screen; whatever it writes to the console as an error fails the test."""
    context = browser.new_context(
        base_url=web.url, viewport={"width": 390, "height": 844}, color_scheme=request.param, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    opened, errors = context.new_page(), []
    opened.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


def follow(button: "sync_api.Locator") -> None:
    """Press it, and wait for the whole page to which it leads: texts are read at once, from whatever is there."""
    with button.page.expect_navigation():
        button.click()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_readable_by_all(page: "sync_api.Page", played: Played, path: str) -> None:
    page.goto(path.format(played.name))
    narrow = page.evaluate("document.documentElement.scrollWidth")
    found = axe.Axe().run(page).response
    page.set_viewport_size({"width": 1440, "height": 844})
    wide = page.evaluate("document.documentElement.scrollWidth")
    tables = "[...document.querySelectorAll('.scroll')]"
    cut = page.evaluate(f"{tables}.filter(one => one.scrollWidth > one.clientWidth).length")

    assert (narrow, wide, cut) == (390, 1440, 0)
    assert found["passes"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_every_thumbnail_of_the_batch_is_shown(page: "sync_api.Page", played: Played) -> None:
    page.goto(f"/projects/{played.name}/batch")
    for image in page.locator("img").all():
        image.scroll_into_view_if_needed()

    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth === 192)")

    assert page.locator(".pick > img").count() == page.locator(".like img").count() == BATCH


def test_the_keyboard_reaches_the_content_first(page: "sync_api.Page", played: Played) -> None:
    page.goto(f"/projects/{played.name}")

    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/projects/{played.name}#main")

    assert focused == "Skip to the content"


def test_the_button_asks_and_the_page_follows_the_round(page: "sync_api.Page", played: Played) -> None:
    with transaction() as session:  # the other colour's round is over
        session.execute(sa.update(Round).where(Round.state == "running").values(state="done", finished_at=now()))
    page.goto(f"/projects/{played.name}")

    follow(page.get_by_role("button", name="Ask for a round"))
    asked = page.locator("#now").inner_text()
    with transaction() as session:
        session.execute(
            sa.update(Round)
            .where(Round.state == "waiting")
            .values(state="running", step="encode", progress={"done": 3, "total": 9}, started_at=now())
        )
    page.evaluate("refresh()")

    assert "waits for a worker" in asked
    assert "encode: 3 of 9" in page.locator("#now").inner_text()
    assert page.get_by_role("progressbar").get_attribute("aria-valuenow") == "3"
    assert int(page.locator("h2").first.inner_text().split()[1]) > VERSIONS


def test_a_person_pins_excludes_and_reranks_with_buttons(page: "sync_api.Page", played: Played) -> None:
    page.goto(f"/projects/{played.name}/batch")

    follow(page.get_by_role("button", name="Pin rank 6", exact=True))
    follow(page.get_by_role("button", name="Exclude rank 7", exact=True))
    page.locator(f"input[name=rank-{played.picked[11]}]").fill("5")
    follow(page.get_by_role("button", name="Save the ranks"))

    shown = page.locator(".pick .what").all_inner_texts()
    assert sum("first in the next batch" in text for text in shown) == 1
    assert sum("never again" in text for text in shown) == 1
    assert page.locator(".pick input[type=number]").first.get_attribute("name") == f"rank-{played.picked[11]}"
    follow(page.get_by_role("button", name="Undo for rank 7", exact=True))
    follow(page.get_by_role("button", name="Undo for rank 8", exact=True))
    page.locator(f"input[name=rank-{played.picked[11]}]").fill("12")  # as it was, for the other colour
    follow(page.get_by_role("button", name="Save the ranks"))
    assert "never again" not in page.locator(".picks").inner_text()
    assert "move item" in page.locator("main").inner_text()


def test_a_model_is_promoted_after_a_question(page: "sync_api.Page", played: Played) -> None:
    page.goto(f"/projects/{played.name}/models")

    follow(page.get_by_role("link", name="Promote v5"))
    asked = page.locator("main").inner_text()
    follow(page.get_by_role("button", name="Promote"))
    follow(page.get_by_role("link", name="Promote v6"))
    follow(page.get_by_role("button", name="Promote"))

    assert "v6 answers now" in asked
    assert page.locator("tr", has_text="champion").get_by_role("rowheader").inner_text() == "v6"


def test_a_lasso_around_items_puts_them_into_the_next_batch(page: "sync_api.Page", played: Played) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(f"/projects/{played.name}/map")
    page.wait_for_selector("canvas[data-drawn]")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    corners = [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9), (0.1, 0.12)]

    for at, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if at == 0:
            page.mouse.down()
    page.mouse.up()
    told = page.locator("#chosen").inner_text()
    ids = [int(one) for one in page.locator("#items").input_value().split(",")]
    for colour in ("klass", "doubt", "round", "strange"):
        page.locator("#colour").select_option(colour)
    page.locator("canvas").press("+")
    follow(page.get_by_role("button", name="Label what is like them"))

    with transaction() as session:
        asked = session.scalars(sa.select(Round).where(Round.state == "waiting")).one()
        session.delete(asked)  # for the other colour
    assert told == f"{len(ids)} items of the pool are chosen."
    assert len(ids) > 100
    assert not set(ids) & set(played.picked)
    assert asked.like["items"] == ids


def test_the_map_is_used_by_keyboard_alone(page: "sync_api.Page", played: Played) -> None:
    page.goto(f"/projects/{played.name}/map")
    page.wait_for_selector("canvas[data-drawn]")

    page.locator("canvas").focus()
    for key in ("+", "+", "ArrowLeft", "-", "Escape"):
        page.keyboard.press(key)
    page.locator("#places").select_option("umap")
    page.wait_for_selector("canvas[data-places=umap]")
    page.get_by_role("button", name="Choose what is in view").press("Enter")

    assert "items of the pool are chosen" in page.locator("#chosen").inner_text()
    assert page.get_by_role("button", name="Label these next").is_enabled()
