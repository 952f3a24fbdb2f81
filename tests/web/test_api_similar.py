"""``/api/node`` and ``/api/similar``: what the page asks first, and what it is for."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import httpx
import pytest

from tests.objects import make_object
from tests.small_node import keep
from tests.web.conftest import WebNode


def similar(client: httpx.Client, level: str, uid: str, **more: Any) -> dict[str, Any]:
    answer = client.post(
        "/api/similar", json={"examples": [{"level": level, "uid": uid}], "level": level, **more}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(client: httpx.Client, **asked: Any) -> tuple[int, str, str]:
    answer = client.post("/api/similar", json=asked)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    return answer.status_code, problem.get("field", ""), problem["detail"]


def test_what_the_page_is_told_of_the_node(web: WebNode, client: httpx.Client) -> None:
    node = client.get("/api/node").json()
    assert node["user"] == {"name": "", "rights": ["administer", "read", "store"]}
    assert (node["login_required"], node["csrf_token"], node["destinations"]) == (False, None, [])
    assert node["model"] == {
        "name": "tiny",
        "version": "1",
        "labels": [f"CLASS_{i}" for i in range(4)],
        "spaces": ["embedding"],
        "code_bits": 16,
        "has_saliency": True,
    }
    assert node["methods"] == ["cosine", "euclidean", "hamming"]
    assert node["defaults"]["results"] == web.node.settings.search.results
    assert {"CT", "MR", "US", "MG"} <= set(node["modalities"])


def test_studies_like_a_study(web: WebNode, client: httpx.Client) -> None:
    example, same_patient, other = web.objects[0], web.objects[4], web.objects[5]
    found = similar(client, "study", example.StudyInstanceUID)
    assert found["model"] == "tiny:1"
    assert found["choices"]["same_patient"] is False
    results = found["results"]
    assert [result["rank"] for result in results] == [1, 2, 3]
    similarities = [result["similarity"] for result in results]
    assert similarities == sorted(similarities, reverse=True)
    described = next(r for r in results if r["study_instance_uid"] == other.StudyInstanceUID)
    assert described.pop("similarity_to_examples") == described["similarity"]
    assert described | {"rank": 0, "similarity": 0, "label": "", "probability": 0} == {
        "rank": 0,
        "similarity": 0,
        "label": "",
        "probability": 0,
        "study_instance_uid": other.StudyInstanceUID,
        "series_instance_uid": other.SeriesInstanceUID,
        "sop_instance_uid": other.SOPInstanceUID,
        "frame_number": 1,
        "number_of_frames": 1,
        "images_in_series": 1,
        "kept": True,
        "patient_id": "P2",
        "patient_name": "Brown^Bob",
        "patient_sex": "M",
        "age_years": pytest.approx(54, abs=0.1),
        "study_date": "20240102",
        "modality": "CT",
        "body_part_examined": "HEAD",
        "study_description": "Head",
        "series_description": "",
        "accession_number": "A3",
        "thumbnail": None,
    }
    with_patient = similar(client, "study", example.StudyInstanceUID, same_patient=True)
    assert len(with_patient["results"]) == 4
    assert same_patient.StudyInstanceUID in {
        result["study_instance_uid"] for result in with_patient["results"]
    }


def test_thumbnails_come_along_when_asked_for(web: WebNode, client: httpx.Client) -> None:
    study = web.objects[0].StudyInstanceUID
    results = similar(client, "study", study, thumbnails=True)["results"]
    assert len(results) > 1
    for result in results:
        frame = f"{result['sop_instance_uid']}/frames/{result['frame_number']}"
        alone = client.get(f"/api/images/{frame}/thumbnail")
        assert b64decode(result["thumbnail"]) == alone.content


def test_filters_and_levels(web: WebNode, client: httpx.Client) -> None:
    study = web.objects[0].StudyInstanceUID
    only = similar(client, "study", study, filters={"Modality": "US"})["results"]
    assert [(r["patient_id"], r["number_of_frames"]) for r in only] == [("P4", 3)]
    assert 1 <= only[0]["frame_number"] <= 3
    image = web.objects[7].SOPInstanceUID
    images = similar(client, "image", image, k=2, filters={"Modality": "CT\\MR"})["results"]
    assert len(images) == 2
    series = similar(client, "series", web.objects[6].SeriesInstanceUID, method="hamming")
    assert series["choices"]["method"] == "hamming"
    axial = next(r for r in series["results"] if r["series_description"] == "axial")
    assert axial["images_in_series"] == 2


def test_several_examples_and_one_that_is_not_wanted(web: WebNode, client: httpx.Client) -> None:
    named = [
        {"level": "study", "uid": web.objects[5].StudyInstanceUID},
        {"level": "image", "uid": web.objects[6].SOPInstanceUID},
    ]
    both = client.post("/api/similar", json={"examples": named}).json()["results"]
    marked = {"level": "study", "uid": both[0]["study_instance_uid"]}
    refined = client.post(
        "/api/similar", json={"examples": named, "negative_examples": [marked]}
    ).json()["results"]
    assert marked["uid"] not in {result["study_instance_uid"] for result in refined}
    assert len(refined) == len(both) - 1
    alone = {one["study_instance_uid"]: one["similarity_to_examples"] for one in both}
    for one in refined:
        assert one["similarity_to_examples"] == pytest.approx(alone[one["study_instance_uid"]])
        assert one["similarity"] != one["similarity_to_examples"]


def test_what_is_refused_names_its_field(web: WebNode, client: httpx.Client) -> None:
    example = {"examples": [{"level": "study", "uid": web.objects[0].StudyInstanceUID}]}
    assert refusal(client, examples=[])[:2] == (400, "examples")
    assert refusal(client, examples=[{"level": "study", "uid": "../1"}])[0] == 400
    assert refusal(client, **example, filters={"StudyDate": "tomorrow"})[:2] == (
        400,
        "filters.StudyDate",
    )
    assert refusal(client, **example, filters={"PixelData": "1"})[:2] == (400, "filters")
    assert refusal(client, **example, k=0)[:2] == (400, "k")
    assert refusal(client, **example, predicted_class="UFO")[:2] == (400, "predicted_class")
    assert refusal(client, **example, space="embedding.none")[:2] == (400, "space")
    assert refusal(client, **example, minimun_age=3)[0] == 400


def test_examples_that_cannot_be_used(web: WebNode, client: httpx.Client) -> None:
    assert refusal(client, examples=[{"level": "study", "uid": "1.2.3"}])[0] == 404
    assert refusal(client, examples=[{"token": "forgotten-long-ago"}])[0] == 404
    waiting = make_object()
    keep(web.node.stores, web.node.settings.data_dir, waiting)
    status, _, detail = refusal(
        client, examples=[{"level": "study", "uid": waiting.StudyInstanceUID}]
    )
    assert (status, "it waits to be embedded" in detail) == (409, True)
