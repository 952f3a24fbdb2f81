"""What is similar to files that are not stored: the answers of QIDO-RS, and nothing stays."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import generate_uid

from tests.web.conftest import WebNode
from tests.web.dicomweb.uploading import DICOM, TYPE, encoded, left_over, related, stored, values

SIMILARITY, RANK, MATCHED = "00791001", "00791002", "00791003"
STUDY, INSTANCE = "0020000D", "00080018"


@pytest.fixture(autouse=True)
def nothing_stays(web: WebNode) -> Iterator[None]:
    before = stored(web.services.stores)
    yield
    assert stored(web.services.stores) == before
    assert left_over(web.services.stores) == []


def post(web: WebNode, body: bytes, content_type: str = DICOM, **asked: Any) -> httpx.Response:
    with web.client() as client:
        return client.post(
            "/dicom-web/similar",
            params={name.replace("_", "-"): value for name, value in asked.items()},
            content=body,
            headers={"Content-Type": content_type},
        )


def get(web: WebNode, resource: str, **asked: Any) -> Any:
    with web.client() as client:
        params = {name.replace("_", "-"): value for name, value in asked.items()}
        return client.get(f"/dicom-web/{resource}", params=params).raise_for_status().json()


def ranking(answer: Any, uid: str = INSTANCE) -> list[tuple[str, float]]:
    """Return UID and similarity of each match; a file's vectors are as exact as float32."""
    found = [(values(item, uid)[0], round(values(item, SIMILARITY)[0], 4)) for item in answer]
    assert [values(item, RANK)[0] for item in answer] == list(range(1, len(answer) + 1))
    return found


def unknown_copy(dataset: Dataset) -> Dataset:
    """Return the same picture as another patient's."""
    copy = deepcopy(dataset)
    copy.PatientID = "nobody"
    copy.SOPInstanceUID, copy.StudyInstanceUID = generate_uid(), generate_uid()
    return copy


def picture(dataset: Dataset, kind: str) -> bytes:
    pixels = np.frombuffer(dataset.PixelData, np.int16).reshape(dataset.Rows, dataset.Columns)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind, quality=100)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("level", "resource", "uid"),
    [("image", "instances", INSTANCE), ("study", "studies", STUDY)],
)
def test_a_file_finds_what_the_stored_image_finds(
    web: WebNode, level: str, resource: str, uid: str
) -> None:
    known = web.objects[5]  # the only image of its study
    named = known.SOPInstanceUID if level == "image" else known.StudyInstanceUID
    expected = get(web, resource, similar_to=named)
    answered = post(web, encoded(known), level=level)
    assert (answered.status_code, answered.headers["content-type"]) == (200, DICOM + "+json")
    assert ranking(answered.json(), uid) == ranking(expected, uid)
    assert [set(item) for item in answered.json()] == [set(item) for item in expected]


def test_several_files_and_stored_examples_are_one_question(web: WebNode) -> None:
    first, second = web.objects[5], web.objects[6]
    expected = ranking(
        get(web, "instances", similar_to=f"{first.SOPInstanceUID},{second.SOPInstanceUID}")
    )
    both = post(web, related(encoded(first), encoded(second)), TYPE, level="image")
    assert ranking(both.json()) == expected
    mixed = post(web, encoded(first), level="image", similar_to=second.SOPInstanceUID)
    assert ranking(mixed.json()) == expected


def test_filters_and_choices_are_those_of_the_search(web: WebNode) -> None:
    known = web.objects[0]
    answer = post(
        web,
        encoded(unknown_copy(known)),
        level="image",
        Modality="CT",
        method="euclidean",
        limit=3,
        includefield="PatientID",
    ).json()
    assert len(answer) == 3
    assert values(answer[0], INSTANCE) == [known.SOPInstanceUID]
    assert {values(item, "00080060")[0] for item in answer} == {"CT"}
    assert values(answer[0], "00100020") == ["P1"]
    unwanted = post(
        *(web, encoded(unknown_copy(known))), level="image", not_similar_to=known.SOPInstanceUID
    )
    assert known.SOPInstanceUID not in dict(ranking(unwanted.json()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_are_examples_too(web: WebNode, kind: str) -> None:
    known = web.objects[6]
    answered = post(
        *(web, picture(known, kind), f"image/{kind.lower()}"), level="image", modality="MR"
    )
    assert answered.status_code == 200
    assert ranking(answered.json())[0][0] == known.SOPInstanceUID
    assert values(answered.json()[0], MATCHED) == [known.SOPInstanceUID]


def test_nothing_that_passes_the_filters_is_no_content(web: WebNode) -> None:
    answered = post(web, encoded(web.objects[5]), Modality="XA")
    assert (answered.status_code, answered.content) == (204, b"")


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", DICOM, 400),
        (b"no DICOM", DICOM, 400),
        (b"\x89PNG\r\n\x1a\n but not really", "image/png", 400),
        (b"text", "text/plain", 415),
        (related(b"text", part_type="text/plain"), TYPE, 415),
        (related(*[b"no DICOM"] * 2), TYPE, 400),
        (b"--here--\r\n", TYPE, 400),
    ],
)
def test_what_cannot_be_an_example_is_a_problem(
    web: WebNode, body: bytes, content_type: str, status: int
) -> None:
    assert_problem(post(web, body, content_type), status)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("level", "patient", 400),
        ("modality", "no/modality", 400),
        ("k", "many", 400),
        ("similar-to", "../1", 400),
        ("similar-to", "1.2.3", 404),
        ("limit", "-1", 400),
    ],
)
def test_a_parameter_that_cannot_be_is_named(
    web: WebNode, name: str, value: str, status: int
) -> None:
    answered = post(web, encoded(web.objects[5]), **{name: value})
    assert_problem(answered, status)
    assert status == 404 or name in answered.json()["detail"]


def test_what_the_client_would_not_accept_is_not_begun(web: WebNode) -> None:
    with web.client(headers={"Accept": "text/html"}) as client:
        assert_problem(client.post("/dicom-web/similar", content=b"never read"), 406)


def assert_problem(answered: httpx.Response, status: int) -> None:
    assert answered.status_code == status
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.json()["status"] == status
    assert answered.json()["detail"]


def test_large_files_and_many_files_are_refused(
    start_web: Callable[..., WebNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    web = start_web(max_example_mib=1)
    large = encoded(web.objects[0]) + b"\0" * (1 << 20)
    assert post(web, large).status_code == 413
    assert post(web, related(large), TYPE).status_code == 413
    monkeypatch.setattr("cbmir_node.web.dicomweb.search.similar_example.MAX_FILES", 1)
    two = related(*map(encoded, web.objects[5:7]))
    answered = post(web, two, TYPE)
    assert answered.status_code == 413
    assert "at most 1 " in answered.json()["detail"]
    assert left_over(web.services.stores) == []
