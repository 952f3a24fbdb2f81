"""STOW-RS: what is answered as stored is stored, and every failure has its reason."""

from __future__ import annotations

import gzip
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select

from cbmir_node.catalog import schema
from cbmir_node.catalog.forwarding.overview import count_forwards
from cbmir_node.config import Settings
from cbmir_node.dicom import store as c_store
from cbmir_node.errors import (
    CatalogError,
    IdentifierError,
    InvalidObjectError,
    NotAnObjectError,
    OutOfSpaceError,
    RejectedObjectError,
)
from cbmir_node.stores import Stores, open_stores
from cbmir_node.web.dicomweb.store.response import MEANINGS, FailureReason, failure_reason
from tests.conftest import REPOSITORY, free_port
from tests.dicom.peers import until
from tests.end_to_end.conftest import RunningNode
from tests.objects import make_object
from tests.retention.test_rejection_notes import note_on
from tests.small_node import open_small_stores
from tests.web.conftest import WebNode
from tests.web.dicomweb.uploading import DICOM, TYPE, encoded, left_over, related, stored, values

FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
CLASS, INSTANCE, REASON, URL = "00081150", "00081155", "00081197", "00081190"


@pytest.fixture
def stores(web: WebNode) -> Stores:
    return web.services.stores


def post(
    web: WebNode, body: bytes, content_type: str | None = TYPE, study: str = "", **headers: str
) -> httpx.Response:
    path = f"/dicom-web/studies/{study}" if study else "/dicom-web/studies"
    named = {"Content-Type": content_type} if content_type is not None else {}
    with web.client() as client:
        return client.post(path, content=body, headers={**named, **headers})


def uids(items: list[dict[str, Any]]) -> list[str]:
    return [values(item, INSTANCE)[0] for item in items]


def reasons(items: list[dict[str, Any]]) -> list[int]:
    return [values(item, REASON)[0] for item in items]


def test_all_objects_are_stored_and_where_they_are_is_told(web: WebNode, stores: Stores) -> None:
    study = generate_uid()
    objects = [make_object(StudyInstanceUID=study) for _ in range(2)]
    answered = post(web, related(*map(encoded, objects)))
    assert (answered.status_code, answered.headers["content-type"]) == (200, DICOM + "+json")
    module = answered.json()
    assert values(module, URL) == [f"{web.url}/dicom-web/studies/{study}"]
    assert set(module) == {URL, REFERENCED}
    for item, dataset in zip(values(module, REFERENCED), objects, strict=True):
        assert values(item, CLASS) == [dataset.SOPClassUID]
        assert values(item, INSTANCE) == [dataset.SOPInstanceUID]
        assert values(item, URL) == [
            f"{web.url}/dicom-web/studies/{study}/series/{dataset.SeriesInstanceUID}"
            f"/instances/{dataset.SOPInstanceUID}"
        ]
        kept = dcmread(stored(stores)[dataset.SOPInstanceUID])
        assert kept == dataset
    assert left_over(stores) == []


def test_objects_of_several_studies_have_no_common_url(web: WebNode) -> None:
    module = post(web, related(*(encoded(make_object()) for _ in range(2)))).json()
    assert module[URL] == {"vr": "UR"}
    assert len(values(module, REFERENCED)) == 2


@pytest.mark.parametrize("content_type", [DICOM, f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.1"])
def test_one_file_alone_is_a_body_too(web: WebNode, stores: Stores, content_type: str) -> None:
    dataset = make_object()
    answered = post(web, encoded(dataset), content_type)
    assert answered.status_code == 200
    assert uids(values(answered.json(), REFERENCED)) == [dataset.SOPInstanceUID]
    assert dataset.SOPInstanceUID in stored(stores)


def test_what_the_senders_preamble_hides_is_not_kept(web: WebNode, stores: Stores) -> None:
    dataset = make_object()
    file = b"MZ" + b"\x90" * 126 + encoded(dataset)[128:]
    assert post(web, file, DICOM).status_code == 200
    assert stored(stores)[dataset.SOPInstanceUID].read_bytes()[:128] == b"\0" * 128


def test_storing_again_succeeds_and_keeps_one(web: WebNode, stores: Stores) -> None:
    file = encoded(make_object())
    before = len(stored(stores))
    assert post(web, related(file, file)).status_code == 200
    assert post(web, related(file)).status_code == 200
    assert len(stored(stores)) == before + 1
    assert left_over(stores) == []


def test_what_is_not_taken_because_it_is_known_is_told(web: WebNode, stores: Stores) -> None:
    first, again, new = make_object(), make_object(), make_object()
    again.SOPInstanceUID, again.PatientComments = first.SOPInstanceUID, "other content"
    assert post(web, related(encoded(first))).status_code == 200
    answered = post(web, related(encoded(again), encoded(new)))
    assert answered.status_code == 202
    known, stored_now = values(answered.json(), REFERENCED)
    assert values(known, "00081196") == [0xB001]
    assert "other content" in values(known, "00000902")[0]
    assert list(known) == sorted(known)
    assert "00081196" not in stored_now
    assert "PatientComments" not in dcmread(stored(stores)[first.SOPInstanceUID])


def test_each_failure_has_its_reason_and_the_rest_is_stored(web: WebNode, stores: Stores) -> None:
    good, truncated, nameless = make_object(), make_object(), make_object(StudyInstanceUID=None)
    files = [
        encoded(truncated)[:-7],
        b"no DICOM at all",
        encoded(good),
        encoded(nameless),
        b"",
        encoded(truncated)[:200],
    ]
    answered = post(web, related(*files))
    assert answered.status_code == 202
    module = answered.json()
    assert uids(values(module, REFERENCED)) == [good.SOPInstanceUID]
    failed = values(module, FAILED)
    assert uids(failed) == [truncated.SOPInstanceUID, nameless.SOPInstanceUID]
    assert reasons(failed) == [FailureReason.CANNOT_UNDERSTAND, FailureReason.IDENTIFIER_MISMATCH]
    assert reasons(values(module, OTHER)) == [FailureReason.CANNOT_UNDERSTAND] * 3
    known = stored(stores)
    assert good.SOPInstanceUID in known
    assert not {truncated.SOPInstanceUID, nameless.SOPInstanceUID} & set(known)
    assert left_over(stores) == []


def test_an_object_of_another_study_is_refused(web: WebNode, stores: Stores) -> None:
    mine, other = make_object(), make_object()
    both = related(encoded(mine), encoded(other))
    answered = post(web, both, study=mine.StudyInstanceUID)
    assert answered.status_code == 202
    assert uids(values(answered.json(), REFERENCED)) == [mine.SOPInstanceUID]
    refused = post(web, related(encoded(other)), study=mine.StudyInstanceUID)
    assert refused.status_code == 409
    (failed,) = values(refused.json(), FAILED)
    assert uids([failed]) == [other.SOPInstanceUID]
    assert reasons([failed]) == [FailureReason.OTHER_STUDY]
    assert values(failed, "00000902")[0].startswith("not of this study")
    assert REFERENCED not in refused.json()
    assert other.SOPInstanceUID not in stored(stores)


@pytest.mark.parametrize(
    ("content_type", "headers"),
    [
        ('multipart/related; type="application/dicom+json"; boundary=here', {}),
        ('multipart/related; type="application/dicom+xml"; boundary=here', {}),
        ("multipart/form-data; boundary=here", {}),
        ("application/dicom+json", {}),
        ("text/plain", {}),
        (None, {}),
        (TYPE, {"Content-Encoding": "gzip"}),
    ],
)
def test_other_media_types_are_refused_with_the_right_one(
    web: WebNode, stores: Stores, content_type: str | None, headers: dict[str, str]
) -> None:
    body = related(encoded(make_object()))
    body = gzip.compress(body) if headers else body
    before = len(stored(stores))
    answered = post(web, body, content_type, **headers)
    assert answered.status_code == 415
    assert answered.headers["content-type"] == "application/problem+json"
    told = answered.json()["detail"]
    assert DICOM in told or "Content-Encoding" in told
    assert len(stored(stores)) == before


def test_parts_of_another_type_are_named_as_failures(web: WebNode) -> None:
    body = related(b"[{}]", part_type="application/dicom+json")
    answered = post(web, body, "multipart/related; boundary=here")
    assert answered.status_code == 409
    assert reasons(values(answered.json(), OTHER)) == [FailureReason.CANNOT_UNDERSTAND]


@pytest.mark.parametrize("study", ["1.2.x", "1" * 65, "..%2F..%2Fetc", "1.2%0d%0aX-Evil:1"])
def test_a_study_that_is_no_uid_is_refused(web: WebNode, study: str) -> None:
    assert post(web, related(encoded(make_object())), study=study).status_code in {400, 404}


@pytest.mark.parametrize("end", [8, 300, -12])
def test_a_body_that_ends_early_leaves_no_half_object(
    web: WebNode, stores: Stores, end: int
) -> None:
    whole, half = make_object(), make_object()
    body = related(encoded(whole), encoded(half))
    second = body.rindex(b"--here\r\n")
    answered = post(web, body[: second + end if end >= 0 else end])
    assert answered.status_code == 400
    assert "closing boundary" in answered.json()["detail"]
    assert whole.SOPInstanceUID in stored(stores)  # like C-STORE, one after another
    assert half.SOPInstanceUID not in stored(stores)
    assert left_over(stores) == []


def test_a_client_that_goes_away_leaves_no_trace(web: WebNode, stores: Stores) -> None:
    half = make_object(size=512)
    body = related(encoded(half))
    before = len(stored(stores))
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as client:
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\n"
            f"Content-Type: {TYPE}\r\nContent-Length: {2 << 20}\r\n\r\n"
        )
        client.sendall(head.encode() + body[:-100] + b"\0" * (1 << 20))
        until(lambda: left_over(stores) != [])
    until(lambda: left_over(stores) == [])
    assert len(stored(stores)) == before
    assert post(web, related(encoded(make_object()))).status_code == 200


def test_too_many_parts_are_refused(web: WebNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbmir_node.web.dicomweb.store.instances.MAX_OBJECTS", 2)
    answered = post(web, related(*(encoded(make_object()) for _ in range(3))))
    assert answered.status_code == 413
    assert "at most 2" in answered.json()["detail"]


def test_a_full_disk_is_told_before_the_body_is_read(start_web: Callable[..., WebNode]) -> None:
    web = start_web(sections={"archive": {"reserve_mib": 1 << 40}})
    answered = post(web, related(encoded(make_object())))
    assert answered.status_code == 507
    assert "disk reserve" in answered.json()["detail"]
    assert left_over(web.services.stores) == []


def test_a_reserve_reached_meanwhile_and_large_objects_are_failures(
    start_web: Callable[..., WebNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    web = start_web(sections={"archive": {"max_object_mib": 1}})
    small, large = make_object(), make_object(size=1024)
    answered = post(web, related(encoded(large), encoded(small)))
    assert answered.status_code == 202
    (failed,) = values(answered.json(), FAILED)
    assert uids([failed]) == [large.SOPInstanceUID]
    assert reasons([failed]) == [FailureReason.OUT_OF_RESOURCES]
    assert "max_object_mib" in values(failed, "00000902")[0]
    archive = web.services.stores.archive
    looks = iter([True])  # there is room when the request comes, and none when its object does
    monkeypatch.setattr(archive, "has_room", lambda: next(looks, False))
    answered = post(web, related(encoded(make_object())))
    assert answered.status_code == 507
    assert reasons(values(answered.json(), FAILED)) == [FailureReason.OUT_OF_RESOURCES]
    assert left_over(web.services.stores) == []


def test_an_error_inside_the_node_is_one_objects_failure(
    web: WebNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_object(), make_object()
    accept = web.services.intake.accept

    def failing(incoming: Any, **options: Any) -> Any:
        if options["sop_instance_uid"] == first.SOPInstanceUID:
            raise ZeroDivisionError
        return accept(incoming, **options)

    monkeypatch.setattr(web.services.intake, "accept", failing)
    answered = post(web, related(encoded(first), encoded(second)))
    assert answered.status_code == 202
    assert reasons(values(answered.json(), FAILED)) == [FailureReason.PROCESSING_FAILURE]
    assert uids(values(answered.json(), REFERENCED)) == [second.SOPInstanceUID]


@pytest.mark.parametrize(
    "error",
    [
        IdentifierError("x"),
        InvalidObjectError("x"),
        NotAnObjectError("x"),
        OutOfSpaceError("x"),
        CatalogError("x"),
        RejectedObjectError("x"),
        OSError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_reasons_are_those_of_c_store(error: Exception) -> None:
    assert failure_reason(error) == c_store._status_of(error)


def test_reasons_are_documented() -> None:
    page = (REPOSITORY / "docs" / "dicomweb.md").read_text()
    assert set(MEANINGS) == set(FailureReason)
    for reason, meaning in MEANINGS.items():
        assert f"| {reason:04X} ({int(reason)}) | {meaning} |" in page


def test_objects_go_on_as_after_c_store(start_web: Callable[..., WebNode]) -> None:
    web = start_web(
        sections={
            "archive": {"duplicates": "replace"},
            "peers": {"NEXT": {"host": "127.0.0.1", "port": free_port()}},
            "forwarding": {"rules": [{"to": "NEXT", "modalities": ["CT"]}]},
        }
    )
    dataset = make_object()
    assert post(web, related(encoded(dataset))).status_code == 200
    assert sum(count_forwards(web.services.stores.catalog).values()) == 1
    assert source_of(web.services.stores, dataset) == "stow-rs"


def test_only_who_may_store_does_and_is_recorded(start_web: Callable[..., WebNode]) -> None:
    tokens = {
        name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "rights": rights}
        for name, rights in (("reader", ["read"]), ("scanner", ["store"]))
    }
    web = start_web(tokens=tokens)
    dataset = make_object()
    body = related(encoded(dataset))
    assert post(web, body).status_code == 401
    assert post(web, body, Authorization="Bearer reader").status_code == 403
    assert dataset.SOPInstanceUID not in stored(web.services.stores)
    assert post(web, body, Authorization="Bearer scanner").status_code == 200
    assert source_of(web.services.stores, dataset) == "stow-rs:scanner"


def test_a_right_to_store_is_none_to_delete(start_web: Callable[..., WebNode]) -> None:
    rights: dict[str, list[str]] = {"scanner": ["store"], "chief": ["store", "administer"]}
    web = start_web(
        tokens={
            name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "rights": given}
            for name, given in rights.items()
        }
    )
    dataset = make_object()
    note = related(encoded(note_on([dataset])))
    post(web, related(encoded(dataset)), Authorization="Bearer scanner")
    refused = post(web, note, Authorization="Bearer scanner")
    assert refused.status_code == 409
    (failed,) = values(refused.json(), FAILED)
    assert values(failed, REASON) == [FailureReason.NOT_AUTHORIZED]
    assert values(failed, "00000902") == ["rejection notes need the right to administer"]
    assert dataset.SOPInstanceUID in stored(web.services.stores)
    assert post(web, note, Authorization="Bearer chief").status_code == 200
    assert dataset.SOPInstanceUID not in stored(web.services.stores)


def test_many_bad_parts_do_not_fill_the_log(web: WebNode, caplog: pytest.LogCaptureFixture) -> None:
    assert post(web, related(*[b"no object"] * 50)).status_code == 409
    told = [record.getMessage() for record in caplog.records if "STOW-RS" in record.getMessage()]
    assert len(told) == 21
    assert told[-1] == "STOW-RS from stow-rs: 30 more objects were not stored"


def source_of(stores: Stores, dataset: Dataset) -> str:
    instances = schema.instances.c
    with stores.catalog.read() as connection:
        named = instances.sop_instance_uid == dataset.SOPInstanceUID
        return str(connection.execute(select(instances.source).where(named)).scalar_one())


def test_dicomweb_client_stores(web: WebNode, stores: Stores) -> None:
    client = DICOMwebClient(f"{web.url}/dicom-web", chunk_size=100_000)
    small, chunked = make_object(), make_object(size=512)
    for dataset in (small, chunked):
        encoded(dataset)  # fills in the file meta information
        told = client.store_instances([dataset])
        assert told.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    told = client.store_instances([small], study_instance_uid=small.StudyInstanceUID)
    assert told.RetrieveURL.endswith(f"/dicom-web/studies/{small.StudyInstanceUID}")
    assert {small.SOPInstanceUID, chunked.SOPInstanceUID} <= set(stored(stores))


def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    open_small_stores(settings).close()
    objects = [make_object() for _ in range(5)]
    node = RunningNode(settings.data_dir)
    try:
        answered = httpx.post(
            f"http://127.0.0.1:{node.http_port}/dicom-web/studies",
            content=related(*map(encoded, objects)),
            headers={"Content-Type": TYPE},
            trust_env=False,
        )
    finally:
        node.kill()
    assert answered.status_code == 200
    stores = open_stores(settings, create=False)
    try:
        kept = stored(stores)
        assert [dcmread(kept[dataset.SOPInstanceUID]) for dataset in objects] == objects
    finally:
        stores.close()
