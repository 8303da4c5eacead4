"""A real chromium, installed in the system, for a module's tests: its event loop is in no other module's way."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A running chromium. Missing, it fails in CI and skips elsewhere."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("chromium is missing: install it from the system's packages")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install nextbatch[test]")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()
