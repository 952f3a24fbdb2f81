"""What a page must not do, what it must be for everybody, and pictures of what it does."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

_LARGEST_BYTES = 250_000  # of a screenshot: they are kept in docs/images
_WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_VIOLATIONS = """options => axe.run(document, options).then(({ violations }) => violations.flatMap(
    ({ id, nodes }) => nodes.map(node => `${id}: ${node.target} ${node.failureSummary}`)))"""


class WatchedPage:
    """Collects what a page does wrong.

    Parameters
    ----------
    page : playwright.sync_api.Page
    origin : str
        Where everything must come from.
    expected : str
        A message of the console with this in it is what the test asked for.
    """

    def __init__(self, page: Any, origin: str, expected: str = "") -> None:
        self.complaints: list[str] = []
        self._origin = origin
        self._expected = expected
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", self._on_request)

    def _on_message(self, message: Any) -> None:
        """Complain; violations of the content security policy are errors of the console too."""
        expected = self._expected and self._expected in message.text
        if message.type in {"error", "warning"} and not expected:
            self.complaints.append(f"{message.type}: {message.text} {message.location}")

    def _on_request(self, request: Any) -> None:
        address = urlsplit(request.url)
        inside = f"{address.scheme}://{address.netloc}" == self._origin
        if not inside and address.scheme not in {"blob", "data"}:
            self.complaints.append(f"request: {request.url}")


def check_accessibility(page: Any, axe: Path) -> None:
    """Fail when axe-core finds anything against WCAG 2.2 A or AA, in the dark or in the light."""
    page.evaluate(axe.read_text(encoding="utf-8"))
    before = page.evaluate("matchMedia('(prefers-color-scheme: light)').matches")
    options = {"runOnly": _WCAG, "resultTypes": ["violations"]}
    assert page.evaluate(_VIOLATIONS, options) == []
    page.emulate_media(color_scheme="dark" if before else "light")
    assert (
        page.evaluate(_VIOLATIONS, {"runOnly": {"type": "rule", "values": ["color-contrast"]}})
        == []
    )
    page.emulate_media(color_scheme="light" if before else "dark")


def save_screenshot(page: Any, name: str, *, whole: bool = False) -> None:
    """Write what is seen, or the whole page, to the folder that ``SCREENSHOTS`` names, if any."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder:
        return
    picture = Image.open(
        io.BytesIO(page.screenshot(animations="disabled", full_page=whole))
    ).convert("RGB")
    for colours in (None, 256, 192, 128, 64):  # the pages are mostly grey
        small = picture
        if colours:
            small = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        file = io.BytesIO()
        small.save(file, "PNG", optimize=True)
        if file.tell() < _LARGEST_BYTES:
            break
    (Path(folder) / f"{name}.png").write_bytes(file.getvalue())
