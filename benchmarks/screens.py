"""Screenshots of every page, light and dark, wide and narrow, for docs/images.

    python -m benchmarks.screens [--out docs/images] [--pages batch,map]

The pages are those of a project as some rounds leave it behind. PNGs of 128 colours; the narrow ones show one screen.
"""

import argparse
import io
import os
import tempfile
from pathlib import Path

from PIL import Image

PAGES = {
    "loop": "",
    "learning": "/learning",
    "batch": "/batch",
    "map": "/map",
    "models": "/models",
    "compare": "/models/compare?one=v6&other=v5",
    "health": "/health",
    "log": "/rounds/6/log",
    "settings": "/settings",
    "api": "",
}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--out", type=Path, default=Path("docs/images"))
    options.add_argument("--pages", default=",".join(PAGES))
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"NEXTBATCH_HOME": folder, "NEXTBATCH_DATA_ROOT": f"{folder}/data"}
        from backend.rounds.queue import prepare_database
        from benchmarks.web import serving
        from tests.web.played import play, with_answers, with_map, with_umap

        prepare_database()
        played = play(Path(folder) / "data", hostile=False)
        with_answers(played)
        with_umap(played, with_map(played))
        with serving(Path(folder)) as url:
            _shoot(url, played.name, asked.out, asked.pages.split(","))


def _shoot(url: str, name: str, out: Path, pages: list[str]) -> None:
    from playwright.sync_api import sync_playwright

    from tests.services.browser import CHROMIUM

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (1440, 390):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page = context.new_page()
                for title in pages:
                    path = "/api" if title == "api" else f"/projects/{name}{PAGES[title]}"
                    page.goto(url + path, wait_until="networkidle")
                    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    small = shot.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
                    small.save(out / f"dashboard-{title}-{scheme}-{width}.png", optimize=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
