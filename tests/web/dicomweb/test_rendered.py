"""Rendered resources and thumbnails: pictures of what was asked for, in the size asked for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.objects import make_object
from tests.small_node import keep
from tests.web.conftest import SIDE, WebNode
from tests.web.dicomweb.asking import get, path_of


def picture(web: WebNode, path: str, accept: str = "*/*", /, **query: Any) -> Image.Image:
    answered = get(web, path, accept, **query)
    assert answered.status_code == 200, answered.text
    found = Image.open(io.BytesIO(answered.content))
    assert answered.headers["content-type"] == Image.MIME[found.format or ""]
    return found


def test_each_level_has_a_picture_and_a_thumbnail(web: WebNode) -> None:
    dataset = web.objects[7]
    study = f"/studies/{dataset.StudyInstanceUID}"
    series = f"{study}/series/{dataset.SeriesInstanceUID}"
    for path in (study, series, path_of(dataset), f"{path_of(dataset)}/frames/2"):
        assert picture(web, f"{path}/rendered").size == (SIDE, SIDE)
        assert picture(web, f"{path}/thumbnail").format == "JPEG"


def test_a_picture_shows_the_frame_that_was_asked_for(web: WebNode) -> None:
    dataset = web.objects[7]
    frames = np.frombuffer(dataset.PixelData, np.uint8).reshape(3, SIDE, SIDE)
    for number, frame in enumerate(frames, start=1):
        found = picture(web, f"{path_of(dataset)}/frames/{number}/rendered", "image/png")
        shown = np.asarray(found.convert("L"), float)
        assert np.corrcoef(shown.ravel(), frame.ravel())[0, 1] > 0.99


def test_the_media_type_is_chosen_by_header_or_query(web: WebNode) -> None:
    path = f"{path_of(web.objects[0])}/rendered"
    assert picture(web, path).format == "JPEG"
    assert picture(web, path, "image/png").format == "PNG"
    assert picture(web, path, "image/jpeg;q=0.5, image/png").format == "PNG"
    assert picture(web, path, "image/*").format == "JPEG"
    assert picture(web, path, "image/jpeg", accept="image/png").format == "PNG"
    assert get(web, path, "video/mp4").status_code == 406
    assert get(web, path, "image/gif;q=1, image/png;q=0").status_code == 406


@pytest.mark.parametrize(
    "accept",
    [
        "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",  # Firefox
        "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,"
        "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",  # Safari
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",  # Chromium
        "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",  # Java
        "image/jpeg;q=0.5, image/png",
    ],
)
def test_browsers_show_thumbnails(web: WebNode, accept: str) -> None:
    path = path_of(web.objects[0])
    assert picture(web, f"{path}/thumbnail", accept).format == "JPEG"
    assert picture(web, f"{path}/thumbnail", accept, viewport="16,16").size == (16, 16)
    assert get(web, f"{path}/thumbnail", "image/png").status_code == 406


def test_window_viewport_region_and_quality_are_heeded(web: WebNode) -> None:
    path = f"{path_of(web.objects[0])}/rendered"
    white = np.asarray(picture(web, path, "image/png", window="-5000,10,linear"))
    black = np.asarray(picture(web, path, "image/png", window="5000,10,sigmoid"))
    assert white.min() == 255
    assert black.max() == 0
    assert picture(web, path, viewport="16,64").size == (16, 16)  # the aspect is kept
    assert picture(web, path, viewport="64,64,0,0,16,16").size == (64, 64)
    rest = picture(web, path, "image/png", viewport="64,64,16,8,,")
    assert rest.tobytes() == picture(web, path, "image/png", viewport="64,64,16,8,16,24").tobytes()
    sizes = [len(get(web, path, quality=quality).content) for quality in (1, 100)]
    assert sizes[0] < sizes[1]
    assert "annotation" in get(web, path, annotation="patient").headers["Warning"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"quality": 0}, "quality"),
        ({"quality": "best"}, "quality"),
        ({"viewport": "64"}, "viewport"),
        ({"viewport": "0,64"}, "viewport"),
        ({"viewport": "99999,99999"}, "viewport"),
        ({"viewport": "64,64,nan,0,1,1"}, "viewport"),
        ({"viewport": "64,64,0,0,0,8"}, "viewport"),
        ({"window": "40,400"}, "window"),
        ({"window": "40,0,linear"}, "window"),
        ({"window": "1e400,400,linear"}, "window"),
        ({"window": "40,400,cubic"}, "window"),
    ],
)
def test_wrong_parameters_are_named(web: WebNode, query: dict[str, Any], field: str) -> None:
    answered = get(web, f"{path_of(web.objects[0])}/rendered", **query)
    assert answered.status_code == 400
    assert answered.json()["field"] == field


def test_one_frame_is_rendered_at_a_time(web: WebNode) -> None:
    path = path_of(web.objects[7])
    assert get(web, f"{path}/frames/1,2/rendered").status_code == 400
    assert get(web, f"{path}/frames/4/rendered").status_code == 404
    assert get(web, f"{path}/frames/0/thumbnail").status_code == 400
    assert get(web, "/studies/1.2.3/rendered").status_code == 404
    assert get(web, "/studies/1.2.3/thumbnail").status_code == 404


@pytest.mark.parametrize("kind", ["rendered", "thumbnail"])
def test_what_has_no_image_is_not_acceptable(web: WebNode, kind: str) -> None:
    report = make_object(PixelData=None, Rows=None, Columns=None)
    keep(web.services.stores, web.node.settings.data_dir, report)
    for path in (path_of(report), f"/studies/{report.StudyInstanceUID}"):
        answered = get(web, f"{path}/{kind}")
        assert answered.status_code == 406
        assert "no image" in answered.json()["detail"]


@pytest.mark.parametrize("kind", ["rendered", "thumbnail"])
def test_what_has_not_changed_is_not_sent_again(web: WebNode, kind: str) -> None:
    path = f"{path_of(web.objects[0])}/{kind}"
    tag = get(web, path).headers["ETag"]
    again = get(web, path, headers={"If-None-Match": f'W/"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert get(web, path, headers={"If-None-Match": '"other"'}).status_code == 200
