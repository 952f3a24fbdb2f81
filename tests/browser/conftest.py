"""Chromium, driven by Playwright, and what every page is watched for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.watching import WatchedPage, check_accessibility, save_screenshot
from tests.conftest import REPOSITORY, needs_program

VIEWER = REPOSITORY / "tests" / "browser" / "viewer"
PATIENCE_MS = 30_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start Debian's Chromium; Playwright only drives it."""
    needs_program("chromium", package="chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def npm_file(name: str) -> Path | None:
    """Return a file of a package of ``viewer/package.json``; ``None`` when it is absent."""
    file = VIEWER / "node_modules" / name
    return file if file.exists() else None


def needs_npm_file(name: str) -> Path:
    """Return a file of a package, or skip the test and say how to install it."""
    file = npm_file(name)
    if file is None:
        pytest.skip(f"{name} is absent: npm install --no-package-lock --prefix {VIEWER}")
    return file


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a page of a node in a fresh profile of the browser.

    What the page did wrong (messages of the console, requests elsewhere, violations of its content
    security policy) fails the test at its end.
    """
    opened: list[tuple[Any, WatchedPage]] = []

    def open_(origin: str, path: str = "/", *, expected: str = "", **options: Any) -> Any:
        usual = {"viewport": {"width": 1360, "height": 850}, "color_scheme": "dark"}
        profile = chromium.new_context(**{**usual, **options})
        page = profile.new_page()
        page.set_default_timeout(PATIENCE_MS)
        opened.append((profile, WatchedPage(page, origin, expected)))
        page.goto(origin + path)
        return page

    yield open_
    for profile, _ in opened:
        profile.close()
    for _, watched in opened:
        assert watched.complaints == []


@pytest.fixture(scope="session")
def shown() -> Callable[..., None]:
    """Return a function called with a page in a state that is worth a look, and its name."""
    axe = npm_file("axe-core/axe.min.js")

    def look(page: Any, name: str, *, picture: bool = True, whole: bool = False) -> None:
        if picture:
            save_screenshot(page, name, whole=whole)
        if axe:  # test_accessibility_is_checked tells when it is not there
            check_accessibility(page, axe)

    return look
