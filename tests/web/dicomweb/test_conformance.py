"""What others demand of a DICOMweb server: PS3.18, a conformance checker and Orthanc.

The checker on PyPI has no checks in its first version; its list of planned ones is done here: media
types, multipart messages, paging, required attributes, frames, round trips, transfer syntaxes and
malformed requests.
"""

from __future__ import annotations

import subprocess
import sys
from email.message import Message
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from tests.backfill.orthanc import PASSWORD, USER, running_pacs
from tests.conftest import free_port, needs_program
from tests.objects import make_object
from tests.web.conftest import WebNode
from tests.web.dicomweb.uploading import DICOM, TYPE, encoded, related, stored, values

CHECK_TIMEOUT_S = 60
ROOT = "/dicom-web"
OF_STUDY = {
    *("00080020", "00080030", "00080050", "00080061", "00080090", "00081190", "00100010"),
    *("00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208"),
}
OF_SERIES = {"00080060", "0020000E", "00200011", "00201209", "00081190"}
OF_INSTANCE = {"00080016", "00080018", "00200013", "00081190"}
"""What a search returns where it is known (PS3.18 Tables 10.6.3-3, 10.6.3-4 and 10.6.3-5)."""


def parts_of(answered: httpx.Response) -> list[Message]:
    """Read a multipart response by what the standard library knows of MIME."""
    head = f"Content-Type: {answered.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answered.content)
    assert message.is_multipart()
    assert not message.defects
    return [part for part in message.get_payload() if isinstance(part, Message)]


def content(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def paths(dataset: Dataset) -> dict[str, str]:
    study = f"{ROOT}/studies/{dataset.StudyInstanceUID}"
    series = f"{study}/series/{dataset.SeriesInstanceUID}"
    return {
        "study": study,
        "series": series,
        "instance": f"{series}/instances/{dataset.SOPInstanceUID}",
    }


def test_the_conformance_checker_finds_nothing(web: WebNode) -> None:
    command = [sys.executable, "-m", "dicomply", "check", "--url", web.url + ROOT]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
    )
    if done.returncode == 2 and "not implemented yet" in done.stderr:
        pytest.skip(f"dicomply has no checks: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("suffix", "accept", "media_type"),
    [
        ("", "*/*", "multipart/related"),
        ("", 'multipart/related; type="application/dicom"', "multipart/related"),
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=*', "multipart/related"),
        ("/metadata", "application/dicom+json", "application/dicom+json"),
        ("/metadata", "application/json", "application/json"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"', "multipart/related"),
        ("/rendered", "image/jpeg", "image/jpeg"),
        ("/rendered", "image/png", "image/png"),
        ("/rendered", "text/html;q=0.1, image/png;q=0.9, image/jpeg;q=0", "image/png"),
        ("/thumbnail", "image/jpeg", "image/jpeg"),
    ],
)
def test_the_accepted_media_type_is_sent(
    web: WebNode, client: httpx.Client, suffix: str, accept: str, media_type: str
) -> None:
    path = paths(web.objects[0])["instance"] + suffix
    answered = client.get(path, headers={"Accept": accept})
    assert answered.status_code == 200, answered.text
    assert answered.headers["content-type"].partition(";")[0] == media_type


@pytest.mark.parametrize("suffix", ["", "/metadata", "/frames/1", "/rendered", "/thumbnail"])
def test_what_is_not_acceptable_is_406(web: WebNode, client: httpx.Client, suffix: str) -> None:
    path = paths(web.objects[0])["instance"] + suffix
    assert client.get(path, headers={"Accept": "video/mpeg"}).status_code == 406


def test_multipart_messages_are_mime(web: WebNode, client: httpx.Client) -> None:
    first = web.objects[0]
    mine = [one for one in web.objects if one.StudyInstanceUID == first.StudyInstanceUID]
    expected = {one.SOPInstanceUID for one in mine}
    answered = client.get(paths(first)["study"], headers={"Accept": "*/*"})
    found = parts_of(answered)
    assert {part.get_content_type() for part in found} == {DICOM}
    assert {dcmread(BytesIO(content(part))).SOPInstanceUID for part in found} == expected


def test_pages_join_without_gap_or_repetition(client: httpx.Client) -> None:
    def search(**asked: int) -> list[Any]:
        answered = client.get(f"{ROOT}/instances", params=asked)
        assert answered.status_code in {200, 204}
        return answered.json() if answered.content else []

    every = [values(item, "00080018")[0] for item in search()]
    pages = [search(limit=3, offset=offset) for offset in range(0, len(every) + 3, 3)]
    assert [values(item, "00080018")[0] for page in pages for item in page] == every
    assert all(len(page) <= 3 for page in pages)


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        ("studies", OF_STUDY),
        ("series", OF_STUDY | OF_SERIES),
        ("instances", OF_STUDY | OF_SERIES | OF_INSTANCE),
    ],
)
def test_required_attributes_are_returned(
    client: httpx.Client, kind: str, required: set[str]
) -> None:
    found = client.get(f"{ROOT}/{kind}").raise_for_status().json()
    assert found
    for item in found:
        assert required <= set(item)
        assert all(len(tag) == 8 and tag == tag.upper() for tag in item)
        (url,) = values(item, "00081190")
        assert client.get(httpx.URL(url).path).status_code == 200


def test_frames_come_in_the_order_asked_for(web: WebNode, client: httpx.Client) -> None:
    dataset = web.objects[7]
    size = dataset.Rows * dataset.Columns
    answered = client.get(
        paths(dataset)["instance"] + "/frames/3,1",
        headers={"Accept": 'multipart/related; type="application/octet-stream"'},
    )
    frames = [content(part) for part in parts_of(answered)]
    assert frames == [dataset.PixelData[2 * size : 3 * size], dataset.PixelData[:size]]


def test_a_round_trip_keeps_every_element(client: httpx.Client) -> None:
    dataset = make_object(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Gr\u00f6\u00dfe^J\u00fcrgen=\u5c71\u7530",
        PatientComments="",
        ReferencedImageSequence=[Dataset(), Dataset()],
        WindowCenter=["40", "-600.5"],
        SmallestImagePixelValue=-1000,
    )
    dataset.ReferencedImageSequence[1].ReferencedSOPInstanceUID = "1.2.3"
    block = dataset.private_block(0x0033, "SOMEBODY", create=True)
    block.add_new(1, "LO", ["private", "twice"])
    block.add_new(2, "FD", 0.1)
    block.add_new(3, "UN", b"\1\2\3\4")
    block.add_new(4, "SQ", [Dataset()])
    body = related(encoded(dataset))
    client.post(f"{ROOT}/studies", content=body, headers={"Content-Type": TYPE}).raise_for_status()
    instance = paths(dataset)["instance"]
    (part,) = parts_of(client.get(instance))
    back = dcmread(BytesIO(content(part)))
    assert back == dataset
    (described,) = client.get(f"{instance}/metadata").raise_for_status().json()
    assert values(described, "00083002") == [ExplicitVRLittleEndian]  # how it is kept
    del dataset.PixelData
    added = {"7FE00010", "00083002"}
    assert {
        tag: one for tag, one in described.items() if tag not in added
    } == dataset.to_json_dict()


@pytest.mark.parametrize(
    "accept",
    [
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1',
        'multipart/related; type="application/dicom"; transfer-syntax="1.2.840.10008.1.2.1"',
    ],
)
def test_the_transfer_syntax_is_the_one_asked_for(
    web: WebNode, client: httpx.Client, accept: str
) -> None:
    answered = client.get(paths(web.objects[0])["instance"], headers={"Accept": accept})
    multipart = accept.startswith("multipart")
    file = content(parts_of(answered)[0]) if multipart else answered.content
    assert dcmread(BytesIO(file)).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_transfer_syntax_that_cannot_be_made_is_406(web: WebNode, client: httpx.Client) -> None:
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90'
    answered = client.get(paths(web.objects[0])["instance"], headers={"Accept": accept})
    assert answered.status_code == 406


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{ROOT}/studies?limit=-1", 400),
        (f"{ROOT}/studies?limit=ten", 400),
        (f"{ROOT}/studies?fuzzymatching=perhaps", 400),
        (f"{ROOT}/studies?StudyDate=yesterday", 400),
        (f"{ROOT}/studies/1.2.3", 404),
        (f"{ROOT}/studies/1.2.3/metadata", 404),
        (f"{ROOT}/studies/no-uid", 400),
        (f"{ROOT}/nothing", 404),
        ("{instance}/frames/0", 400),
        ("{instance}/frames/1,x", 400),
        ("{instance}/frames/99", 404),
        ("{instance}/rendered?window=1", 400),
        ("{instance}/rendered?viewport=0,0", 400),
        ("{instance}/rendered?quality=101", 400),
    ],
)
def test_what_is_malformed_or_unknown_is_a_problem(
    web: WebNode, client: httpx.Client, path: str, status: int
) -> None:
    answered = client.get(path.format(**paths(web.objects[0])))
    assert answered.status_code == status
    assert answered.headers["content-type"] == "application/problem+json"


def test_a_method_that_a_resource_lacks_is_405(client: httpx.Client) -> None:
    answered = client.delete(f"{ROOT}/studies/1.2.3")
    assert answered.status_code == 405
    assert {"GET", "POST"} & set(answered.headers["allow"].split(", "))


def test_orthanc_stores_by_stow(web: WebNode, tmp_path: Path) -> None:
    needs_program("Orthanc", package="orthanc orthanc-dicomweb")
    objects = [make_object(size=64) for _ in range(12)]  # Orthanc sends ten in a request
    with running_pacs(tmp_path / "orthanc", free_port()) as pacs:
        assert pacs.url  # skips where the plug-in is absent
        pacs.add(*objects)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{pacs.http_port}",
            auth=(USER, PASSWORD),
            trust_env=False,
            timeout=60,
        ) as http:
            server = {"Url": web.url + ROOT}
            http.put("/dicom-web/servers/node", json=server).raise_for_status()
            sent = {"Resources": http.get("/instances").json(), "Synchronous": True}
            told = http.post("/dicom-web/servers/node/stow", json=sent)
        assert told.status_code == 200, pacs.log
    assert {dataset.SOPInstanceUID for dataset in objects} <= set(stored(web.services.stores))
