"""What a user of the page waits for: the answer to a similarity query with its thumbnails, drawn.

Run ``python benchmarks/page.py --help``. The node holds made-up studies with random vectors; the
pixels are not there, thumbnails are. One client, then several at once, ask for a random study as
the page does; between two questions each thinks for a while. Chromium, when there is one, draws
the page itself.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from index_search import images_like
from PIL import Image
from pydicom import Dataset
from servers import node
from sqlalchemy import insert, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.catalog.reception.records import make_record
from cbmir_node.catalog.reception.registration import register
from cbmir_node.config import Settings
from cbmir_node.stores import open_stores

IMAGES_PER_STUDY = 4
_AT_ONCE = 5_000
_MODALITIES = ("CT", "MR", "CR", "US", "MG")
_PARTS = ("HEAD", "CHEST", "ABDOMEN", "KNEE", "BREAST")


def study_uid(number: int) -> str:
    """Return the Study Instance UID of a made-up study."""
    return f"1.2.826.0.1.3680043.9.7433.7.{number + 1}"


def fill(folder: Path, images: int) -> None:
    """Enter studies, vectors and thumbnails as if they had been received and embedded."""
    stores = open_stores(Settings(data_dir=folder / "data"), create=True)
    try:
        model = stores.registry.active()
        generator = np.random.default_rng(2026)
        vectors = images_like(generator, images, model.spaces["embedding"])
        pictures = _thumbnails(generator)
        for first in range(0, images, _AT_ONCE):
            last = min(images, first + _AT_ONCE)
            _enter(stores.catalog, model, vectors[first:last], pictures, first)
    finally:
        stores.close()


def _thumbnails(generator: np.random.Generator) -> list[bytes]:
    """Return JPEGs of smooth noise, of about the size that those of real images have."""
    pictures = []
    for _ in range(64):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 24), dtype=np.uint8))
        grain = generator.normal(0, 6, (256, 256))
        picture = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)) + grain
        file = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
        pictures.append(file.getvalue())
    return pictures


def _enter(
    catalog: Catalog,
    model: InstalledModel,
    vectors: np.ndarray[Any, np.dtype[np.float32]],
    pictures: Sequence[bytes],
    first: int,
) -> None:
    labels = model.labels or ("none",)
    with catalog.write() as connection:
        for number in range(first, first + len(vectors)):
            register(connection, _record(number), "keep")
        rows = range(first + 1, first + len(vectors) + 1)  # of an empty catalogue
        connection.execute(
            insert(schema.vectors),
            [
                {
                    "instance": row,
                    "model": model.row,
                    "space": "embedding",
                    "frame_number": 1,
                    "vector": vector.astype("<f4").tobytes(),
                    "code": bytes(model.code_bits // 8),
                    "label": labels[row % len(labels)],
                    "probability": 0.9,
                }
                for row, vector in zip(rows, vectors, strict=True)
            ],
        )
        connection.execute(
            insert(schema.thumbnails),
            [
                {"instance": row, "frame_number": 1, "picture": pictures[row % len(pictures)]}
                for row in rows
            ],
        )
        connection.execute(
            update(schema.work)
            .where(schema.work.c.state == "pending")
            .values(state="embedded", finished_at=time.time())
        )


def _record(number: int) -> Any:
    study = number // IMAGES_PER_STUDY
    dataset = Dataset()
    dataset.PatientID, dataset.PatientName = f"P{study}", f"Made^Up{study}"
    dataset.PatientSex, dataset.PatientAge = "FM"[study % 2], f"{20 + study % 70:03d}Y"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid(study), f"{study_uid(study)}.1"
    dataset.SOPInstanceUID = f"{study_uid(study)}.1.{number % IMAGES_PER_STUDY + 1}"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.StudyDate = f"{2005 + study % 18}{1 + study % 12:02d}{1 + study % 28:02d}"
    dataset.Modality = _MODALITIES[study % len(_MODALITIES)]
    dataset.BodyPartExamined = _PARTS[study % len(_PARTS)]
    dataset.InstanceNumber = number % IMAGES_PER_STUDY + 1
    return make_record(
        dataset,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        has_pixels=True,
        path="",
        size_bytes=1,
        content_sha256="",
        source="benchmark",
        received_at=time.time(),
    )


class Client:
    """Asks as the page does, over a connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, uid: str) -> float:
        """Return after how many seconds the answer and its thumbnails were there."""
        begin = time.perf_counter()
        question = {"examples": [{"level": "study", "uid": uid}], "level": "study"}
        body = json.dumps({**question, "thumbnails": True})
        self._connection.request("POST", "/api/similar", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        taken = time.perf_counter() - begin
        if response.status != 200:
            raise click.ClickException(f"{response.status} {content[:200]!r}")
        results = json.loads(content)["results"]
        if len(results) != 20 or not all(one["thumbnail"] for one in results):
            raise click.ClickException(f"{len(results)} answers instead of 20, or no thumbnails")
        return taken


def measure(port: int, clients: int, think_s: float, seconds: float, studies: int) -> list[float]:
    """Return what `Client.ask` did, of all clients together."""
    end, taken = time.monotonic() + seconds, list[float]()

    def use(number: int) -> None:
        chance, client = random.Random(number), Client(port)
        time.sleep(chance.uniform(0, think_s))
        while time.monotonic() < end:
            taken.append(client.ask(study_uid(chance.randrange(studies))))
            time.sleep(chance.uniform(0.5 * think_s, 1.5 * think_s))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(use, range(clients)))
    return taken


@contextmanager
def browser_page(port: int) -> Iterator[Any]:
    """Open a page of Chromium at the node."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  optional

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            yield browser.new_page(base_url=f"http://127.0.0.1:{port}")
        finally:
            browser.close()


_DRAWN = """() => {
    const drawn = [...document.querySelectorAll('#results img')];
    return drawn.length >= 20 && drawn.every((image) => image.complete && image.naturalWidth > 0);
}"""


def drawn_in_browser(port: int, questions: int, studies: int) -> list[float]:
    """Return the seconds from opening the address of a study to all its results being drawn."""
    chance, times = random.Random(7), []
    with browser_page(port) as page:
        for _ in range(questions + 1):  # the first one fills the browser's cache
            begin = time.perf_counter()
            page.goto(f"/?study={study_uid(chance.randrange(studies))}")
            page.wait_for_function(_DRAWN, timeout=30_000)
            times.append(time.perf_counter() - begin)
    return times[1:]


def _report(name: str, times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    found = {
        "questions": len(ordered),
        "p50_ms": 1e3 * statistics.median(ordered),
        "p95_ms": 1e3 * ordered[int(0.95 * (len(ordered) - 1))],
        "max_ms": 1e3 * ordered[-1],
    }
    figures = "  ".join(f"{key} {value:.0f}" for key, value in found.items())
    click.echo(f"{name:28s} {figures}")
    return found


@click.command(help=__doc__)
@click.option("--images", default=100_000, show_default=True)
@click.option("--clients", default=20, show_default=True)
@click.option("--think", default=2.0, show_default=True, help="Seconds between two questions.")
@click.option("--seconds", default=60.0, show_default=True, help="Of each measurement.")
@click.option("--browser/--no-browser", default=True, help="Also draw the page in Chromium.")
def main(images: int, clients: int, think: float, seconds: float, browser: bool) -> None:
    """Fill a node, measure, and print the times and their ratios."""
    studies = images // IMAGES_PER_STUDY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, images)
        with node(folder, nodelay=True) as server:
            client = Client(server.http_port)
            for number in range(5):
                client.ask(study_uid(number))
            alone = measure(server.http_port, 1, think, seconds, studies)
            together = measure(server.http_port, clients, think, seconds, studies)
            one, many = _report("one client", alone), _report(f"{clients} clients", together)
            ratio = many["p95_ms"] / one["p50_ms"]
            click.echo(f"p95 of {clients} clients / p50 of one: {ratio:.2f}")
            if browser and shutil.which("chromium"):
                _report("drawn by Chromium", drawn_in_browser(server.http_port, 20, studies))


if __name__ == "__main__":
    main()
