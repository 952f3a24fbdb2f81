"""A viewer of somebody else, in a browser and of another origin, shows a study of the node."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.browser.conftest import VIEWER, needs_npm_file
from tests.browser.running import start_node
from tests.end_to_end.conftest import RunningNode
from tests.phantoms.objects import study

PIXELS = """() => {
    const canvas = document.querySelector('#layers canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(data.filter((_, index) => index % 4 === 0)).size;
}"""


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def viewer_origin() -> Iterator[str]:
    """Serve the viewer's page, from loopback but from another port than the node's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(VIEWER)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any, viewer_origin: str
) -> Iterator[RunningNode]:
    needs_npm_file("dwv/dist/dwv.min.js")
    folder: Path = tmp_path_factory.mktemp("viewed")
    allowed = f'[http]\nallowed_origins = ["{viewer_origin}"]\n'
    running = start_node(folder, study("CT chest", 0), allowed)
    yield running
    running.kill()


@pytest.mark.parametrize(
    "accept", ['multipart/related; type="application/dicom"', "application/dicom"]
)
def test_dwv_draws_a_study(
    chromium: Any, node: RunningNode, viewer_origin: str, accept: str
) -> None:
    images = study("CT chest", 0)
    asked = {
        "node": f"http://127.0.0.1:{node.http_port}",
        "study": str(images[0].StudyInstanceUID),
        "accept": accept,
    }
    page = chromium.new_page()
    page.goto(f"{viewer_origin}/index.html?{urlencode(asked)}")
    page.wait_for_function("document.getElementById('state').textContent !== 'loading'")
    assert page.text_content("#state") == f"loaded {len(images)}"
    page.wait_for_selector("#layers canvas")
    assert page.evaluate(PIXELS) > 50, "the canvas shows next to no grey levels"
    page.close()


def test_an_origin_that_is_not_allowed_gets_nothing(
    chromium: Any, node: RunningNode, viewer_origin: str
) -> None:
    page = chromium.new_page()
    page.goto(viewer_origin.replace("127.0.0.1", "localhost") + "/package.json")
    refused = page.evaluate(
        "address => fetch(address).then(() => 'read', error => error.name)",
        f"http://127.0.0.1:{node.http_port}/dicom-web/studies",
    )
    assert refused == "TypeError"
    page.close()
