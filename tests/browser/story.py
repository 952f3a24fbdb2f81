"""What a reader does with the page, step by step."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image
from pydicom import Dataset

RESULT = "[data-testid=result]"
DRAWN = """count => {
    const where = '[data-testid=result] .picture img:first-child';
    const pictures = [...document.querySelectorAll(where)];
    return !document.querySelector('[data-testid=results][aria-busy]')
        && pictures.length === count && pictures.every(p => p.complete && p.naturalWidth > 0);
}"""
_DATA_TRANSFER = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    return transfer;
}"""


def dicom_file(dataset: Dataset) -> bytes:
    """Return a data set as the content of a DICOM file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def picture_file(dataset: Dataset, kind: str = "PNG") -> bytes:
    """Return the pixels of a grey object as a picture without any tags."""
    low = dataset.WindowCenter - dataset.WindowWidth / 2
    grey = ((dataset.pixel_array - float(low)) / float(dataset.WindowWidth)).clip(0, 1) * 255
    file = io.BytesIO()
    Image.fromarray(grey.astype("uint8")).save(file, kind)
    return file.getvalue()


def drag_over(page: Any, name: str, content: bytes) -> Any:
    """Drag a file over the page and hold it; return what is held."""
    held = page.evaluate_handle(_DATA_TRANSFER, [name, base64.b64encode(content).decode()])
    page.dispatch_event("body", "dragenter", {"dataTransfer": held})
    page.dispatch_event("body", "dragover", {"dataTransfer": held})
    return held


def drop(page: Any, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    page.dispatch_event("body", "drop", {"dataTransfer": drag_over(page, name, content)})


def wait_for_results(page: Any, count: int = 20) -> None:
    """Wait until so many results are there and their thumbnails are really drawn."""
    page.wait_for_function(DRAWN, arg=count)


def images(page: Any) -> list[str]:
    """Return the SOP Instance UID that stands for each result, best first."""
    found: list[str] = page.eval_on_selector_all(RESULT, "all => all.map(one => one.dataset.image)")
    return found


def texts(page: Any, testid: str) -> list[str]:
    """Return the text of each result's element with this test id."""
    found: list[str] = page.locator(f"{RESULT} [data-testid={testid}]").all_inner_texts()
    return found


def canvas(page: Any, pane: int) -> str:
    """Return the pixels of the larger view's left (0) or right (1) half, for comparison."""
    found: str = page.locator(".pane canvas.stage").nth(pane).evaluate("one => one.toDataURL()")
    return found


def wait_until_drawn(page: Any, pane: int) -> None:
    """Wait until half of the larger view shows more than black."""
    page.wait_for_function(
        """pane => {
            const stage = document.querySelectorAll('.pane canvas.stage')[pane];
            const small = new OffscreenCanvas(100, 100).getContext('2d');
            small.drawImage(stage, 0, 0, 100, 100);
            return new Set(small.getImageData(0, 0, 100, 100).data).size > 20;
        }""",
        arg=pane,
    )


def wait_until_changed(page: Any, pane: int, before: str) -> None:
    """Wait until half of the larger view shows other pixels."""
    page.wait_for_function(
        "([pane, before]) => "
        "document.querySelectorAll('.pane canvas.stage')[pane].toDataURL() !== before",
        arg=[pane, before],
    )
