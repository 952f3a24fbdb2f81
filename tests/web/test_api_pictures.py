"""What the page shows of stored images and of dropped files: frames, descriptions, sending."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import BasicTextSRStorage, generate_uid

from cbmir_node.catalog.forwarding.overview import count_forwards
from cbmir_node.catalog.forwarding.resting_destinations import rest_destination
from tests.dicom.peers import until
from tests.objects import make_object, write
from tests.small_node import keep
from tests.web.conftest import SIDE, WebNode

PEER = {
    "peers": {"PACS": {"host": "127.0.0.1", "port": 104}},
    "retention": {"retrieve_from": "PACS"},
}


@pytest.fixture(scope="module")
def sending(start_web: Callable[..., WebNode]) -> WebNode:
    return start_web(PEER, max_example_mib=1, viewers={"OHIF": "http://v/?s={StudyInstanceUID}"})


@pytest.fixture(scope="module")
def client(sending: WebNode) -> Iterator[httpx.Client]:
    with sending.client() as opened:
        yield opened


def test_frames_of_a_stored_image(sending: WebNode, client: httpx.Client) -> None:
    uid = sending.objects[7].SOPInstanceUID
    frames = f"/api/images/{uid}/frames"
    thumbnail = client.get(f"{frames}/2/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert "private" in thumbnail.headers["cache-control"]
    assert Image.open(io.BytesIO(thumbnail.content)).size == (SIDE, SIDE)
    overlay = client.get(f"{frames}/2/saliency")
    assert Image.open(io.BytesIO(overlay.content)).mode == "RGBA"
    classes = client.get(f"{frames}/2/predictions").json()
    probabilities = [one["probability"] for one in classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)
    assert client.get(f"{frames}/4/thumbnail").status_code == 404
    assert client.get(f"{frames}/0/thumbnail").status_code == 400
    assert client.get("/api/images/1.2.3/frames/1/values").status_code == 404
    assert client.get("/api/images/..%2f..%2fetc/frames/1/values").status_code in (400, 404)


def test_values_are_the_modality_values(sending: WebNode, client: httpx.Client) -> None:
    stored = sending.objects[0]
    answer = client.get(f"/api/images/{stored.SOPInstanceUID}/frames/1/values")
    told = {name: float(answer.headers[f"cbmir-{name}"]) for name in ("minimum", "step")}
    shape = (int(answer.headers["cbmir-rows"]), int(answer.headers["cbmir-columns"]))
    values = np.frombuffer(answer.content, "<u2").reshape(shape)
    original = np.frombuffer(stored.PixelData, np.int16).reshape(SIDE, SIDE)
    assert answer.headers["cbmir-samples"] == "1"
    assert values * told["step"] + told["minimum"] == pytest.approx(original, abs=0.51)
    small = client.get(f"/api/images/{stored.SOPInstanceUID}/frames/1/values?longest_side=16")
    assert (small.headers["cbmir-rows"], small.headers["cbmir-original-rows"]) == ("16", str(SIDE))


def test_what_is_not_kept_is_gone_and_says_where_to_look(
    sending: WebNode, client: httpx.Client
) -> None:
    uid = sending.objects[6].SOPInstanceUID
    sending.evict(uid)
    gone = client.get(f"/api/images/{uid}/frames/1/values")
    assert (gone.status_code, "PACS" in gone.json()["detail"]) == (410, True)
    assert client.get(f"/api/images/{uid}/frames/1/thumbnail").status_code == 200
    assert client.get(f"/api/subjects/image/{uid}").json()["kept"] is False


def test_subjects_and_the_images_of_a_series(sending: WebNode, client: httpx.Client) -> None:
    first = sending.objects[0]
    study = client.get(f"/api/subjects/study/{first.StudyInstanceUID}").json()
    assert (study["embedded"], study["reason"], study["instances"]) == (True, "", 4)
    assert (study["patient_id"], study["level"]) == ("P1", "study")
    assert study["sop_instance_uid"] in {o.SOPInstanceUID for o in sending.objects[:4]}
    assert study["predictions"][0]["label"].startswith("CLASS_")
    series = client.get(f"/api/series/{first.SeriesInstanceUID}/images").json()
    assert [(one["sop_instance_uid"], one["instance_number"]) for one in series] == [
        (sending.objects[0].SOPInstanceUID, 1),
        (sending.objects[1].SOPInstanceUID, 2),
    ]
    assert client.get("/api/series/1.2/images").status_code == 404
    assert client.get("/api/subjects/study/1.2").status_code == 404
    assert client.get("/api/subjects/patient/1.2").status_code == 400
    waiting = make_object()
    keep(sending.node.stores, sending.node.settings.data_dir, waiting)
    told = client.get(f"/api/subjects/study/{waiting.StudyInstanceUID}").json()
    assert (told["embedded"], told["state"], told["predictions"]) == (False, "pending", [])


def test_a_report_is_described_though_it_has_no_image(
    sending: WebNode, client: httpx.Client
) -> None:
    report = make_object(
        SOPClassUID=BasicTextSRStorage, Modality="SR", PixelData=None, PatientName="Fox^Fay"
    )
    keep(sending.node.stores, sending.node.settings.data_dir, report)
    named = {"study": report.StudyInstanceUID, "image": report.SOPInstanceUID}
    for level, uid in named.items():
        told = client.get(f"/api/subjects/{level}/{uid}").json()
        assert (told["instances"], told["images"], told["embedded"]) == (1, 0, False)
        assert (told["state"], "no picture" in told["reason"]) == ("no_pixels", True)
        assert (told["modality"], told["patient_name"]) == ("SR", "Fox^Fay")
        assert told["sop_instance_uid"] == report.SOPInstanceUID
        asked = {"examples": [{"level": level, "uid": uid}]}
        refused = client.post("/api/similar", json=asked)
        assert (refused.status_code, "no picture" in refused.json()["detail"]) == (409, True)


def test_a_dropped_object_is_an_example_until_it_is_stored(
    sending: WebNode, client: httpx.Client, tmp_path: Path
) -> None:
    new = make_object(PatientID="NEW", PixelData=sending.objects[5].PixelData, size=SIDE)
    content = write(new, tmp_path / "new.dcm").read_bytes()
    dropped = client.post("/api/examples", params={"name": "new.dcm"}, content=content)
    assert dropped.status_code == 201, dropped.text
    told = dropped.json()
    assert (told["kind"], told["known"], told["patient_id"]) == ("dicom", False, "NEW")
    assert told["frame_numbers"] == [1]
    token = told["token"]
    similar = client.post("/api/similar", json={"examples": [{"token": token}], "k": 1}).json()
    assert similar["results"][0]["sop_instance_uid"] == sending.objects[5].SOPInstanceUID
    frames = f"/api/examples/{token}/frames/1"
    for part in ("thumbnail", "values", "saliency", "predictions"):
        assert client.get(f"{frames}/{part}").status_code == 200, part
    stored = client.post(f"/api/examples/{token}/store").json()
    assert stored == {
        "sop_instance_uid": new.SOPInstanceUID,
        "study_instance_uid": new.StudyInstanceUID,
        "outcome": "stored",
    }
    assert client.get(f"/api/examples/{token}").json()["known"] is True
    assert client.delete(f"/api/examples/{token}").status_code == 204
    assert client.get(f"/api/examples/{token}").status_code == 404
    assert client.get(f"{frames}/thumbnail").status_code == 404
    again = client.post("/api/similar", json={"examples": [{"token": token}]})
    assert (again.status_code, "again" in again.json()["detail"]) == (404, True)


def test_a_dropped_picture_gets_its_modality(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60), np.uint8)).save(file, "PNG")
    told = client.post(
        "/api/examples", params={"name": "x.png", "modality": "CR"}, content=file.getvalue()
    ).json()
    assert (told["kind"], told["modality"], told["number_of_frames"]) == ("png", "CR", 1)
    assert client.post("/api/examples?modality=<b>", content=b"x").status_code == 400


def test_uploads_that_are_refused_leave_nothing_behind(
    sending: WebNode, client: httpx.Client
) -> None:
    folder = sending.node.settings.examples_path
    before = set(folder.rglob("*"))
    assert client.post("/api/examples", content=b"no picture").status_code == 400
    assert client.post("/api/examples", content=b"").status_code == 400
    announced = client.post("/api/examples", content=b"x" * (1 << 20 | 1))
    assert announced.status_code == 413
    parts = (b"x" * (1 << 16) for _ in range(20))  # no Content-Length
    assert client.post("/api/examples", content=parts).status_code == 413
    assert set(folder.rglob("*")) == before


def test_an_upload_that_breaks_off_leaves_nothing_behind(sending: WebNode) -> None:
    folder = sending.node.settings.examples_path
    before = set(folder.rglob("*"))
    head = "POST /api/examples HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", sending.port), timeout=10) as connection:
        connection.sendall(head.encode() + b"x" * 1000)
        until(lambda: set(folder.rglob("*")) != before)
    until(lambda: set(folder.rglob("*")) == before)


def test_a_study_is_sent_at_the_push_of_a_button(sending: WebNode, client: httpx.Client) -> None:
    node = client.get("/api/node").json()
    assert node["destinations"] == ["PACS"]
    assert node["viewers"] == [{"name": "OHIF", "url": "http://v/?s={StudyInstanceUID}"}]
    asked = {"study_instance_uid": sending.objects[0].StudyInstanceUID, "destination": "PACS"}
    answer = client.post("/api/send", json=asked)
    catalog = sending.node.stores.catalog
    assert (answer.status_code, answer.json()) == (
        202,
        {"objects": 4, "waiting": 0, "resting": None},
    )
    assert count_forwards(catalog)["pending"] == 4
    rest_destination(catalog, "PACS", "it is down", lambda _: 60.0, 3600)
    again = client.post("/api/send", json=asked).json()
    assert (again["objects"], again["waiting"]) == (0, 4)
    assert again["resting"]["reason"] == "it is down"
    sending.node._counts.present()  # a busy machine would tell counts of up to 5 s ago
    report = client.get("/api/administration").json()
    assert report["problems"] == []
    assert report["notices"] == ["nothing can be sent to PACS at the moment: it is down"]
    (queue,) = report["destinations"]
    assert (queue["destination"], queue["pending"], queue["sent"]) == ("PACS", 4, 0)
    assert (queue["last_reason"], queue["next_try"]) == (
        "it is down",
        again["resting"]["next_try"],
    )
    assert 0 <= queue["oldest_pending_s"] < 60
    unknown = client.post("/api/send", json={**asked, "destination": "PASC"})
    assert (unknown.status_code, "PACS" in unknown.json()["detail"]) == (404, True)
    nothing = client.post("/api/send", json={**asked, "study_instance_uid": generate_uid()})
    assert nothing.status_code == 404
