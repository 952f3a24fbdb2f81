"""WADO-RS: objects, metadata, bulk data and frames, as clients ask for them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG4HP41,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from tests.imaging.image_objects import LOSSLESS, colours, ramp, write_object
from tests.objects import make_object, write
from tests.small_node import archive_file
from tests.web.conftest import WebNode
from tests.web.dicomweb.asking import get, parts, path_of, value

FILES = 'multipart/related; type="application/dicom"'
AS_STORED = f"{FILES}; transfer-syntax=*"
OCTETS = 'multipart/related; type="application/octet-stream"'


@pytest.fixture(scope="module")
def accept(web: WebNode, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Dataset]:
    """Return a function that puts a file into the node."""

    def put(path: Path) -> Dataset:
        web.services.intake.accept_file(path)
        return dcmread(path)

    return put


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


FRAMES = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])


def named(study: str | None = None, **others: Any) -> dict[str, Any]:
    study = study or generate_uid()
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"[-64:].lstrip(".")}
    return {**uids, "SOPInstanceUID": generate_uid(), "PatientID": "W1", **others}


@pytest.fixture(scope="module")
def compressed(accept: Callable[[Path], Dataset], folder: Path) -> dict[str, Dataset]:
    """Put three frames into the node in several transfer syntaxes, one series for all."""
    study = generate_uid()
    found = {}
    for syntax in (JPEG2000Lossless, RLELossless):
        path = write_object(
            *(folder / f"{syntax}.dcm", FRAMES),
            **named(study, NumberOfFrames=3),
            syntax=syntax,
            encode=LOSSLESS[syntax],
        )
        found[syntax] = accept(path)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        path = write_object(
            folder / f"{syntax}.dcm", FRAMES, **named(study, NumberOfFrames=3), syntax=syntax
        )
        found[syntax] = accept(path)
    return found


@pytest.fixture
def client(web: WebNode) -> DICOMwebClient:
    return DICOMwebClient(f"{web.url}/dicom-web")


def uids(dataset: Dataset) -> tuple[str, str, str]:
    return (
        str(dataset.StudyInstanceUID),
        str(dataset.SeriesInstanceUID),
        str(dataset.SOPInstanceUID),
    )


def test_a_client_retrieves_studies_series_and_instances(
    web: WebNode, client: DICOMwebClient, compressed: dict[str, Dataset]
) -> None:
    rle = compressed[RLELossless]
    found = client.retrieve_study(rle.StudyInstanceUID)
    assert {one.SOPInstanceUID for one in found} == {
        one.SOPInstanceUID for one in compressed.values()
    }
    for one in found:  # decompressed: what is not asked for otherwise
        assert one.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert np.array_equal(one.pixel_array, FRAMES)
    assert len(client.retrieve_series(*uids(rle)[:2])) == len(found)
    kept = client.retrieve_instance(*uids(rle), media_types=(("application/dicom", RLELossless),))
    assert kept.file_meta.TransferSyntaxUID == RLELossless
    assert kept.PixelData == rle.PixelData


def test_as_stored_means_compressed_but_never_implicit_or_big_endian(
    web: WebNode, compressed: dict[str, Dataset]
) -> None:
    study = compressed[RLELossless].StudyInstanceUID
    sent = parts(get(web, f"/studies/{study}", AS_STORED))
    syntaxes = []
    for content_type, content in sent:
        found = dcmread(io.BytesIO(content))
        syntax = found.file_meta.TransferSyntaxUID
        assert content_type == f"application/dicom; transfer-syntax={syntax}"
        assert np.array_equal(found.pixel_array, FRAMES)
        syntaxes.append(syntax)
    assert syntaxes == [JPEG2000Lossless, RLELossless, *[ExplicitVRLittleEndian] * 2]


def test_what_is_acceptable_is_sent_and_the_rest_is_told(
    web: WebNode, compressed: dict[str, Dataset]
) -> None:
    study = compressed[RLELossless].StudyInstanceUID
    only_rle = get(web, f"/studies/{study}", f"{FILES}; transfer-syntax={RLELossless}")
    assert only_rle.status_code == 206
    assert len(parts(only_rle)) == 1
    assert "3 instances are not acceptable" in only_rle.headers["Warning"]
    nothing = get(web, f"/studies/{study}", f"{FILES}; transfer-syntax={JPEGBaseline8Bit}")
    assert nothing.status_code == 406
    assert get(web, f"/studies/{study}", "image/gif").status_code == 406


def test_one_instance_comes_as_a_plain_file(web: WebNode) -> None:
    example = web.objects[0]
    answered = get(web, path_of(example), "application/dicom")
    assert answered.headers["content-type"].startswith("application/dicom")
    assert dcmread(io.BytesIO(answered.content)).PixelData == example.PixelData
    same = get(
        web,
        path_of(example),
        "application/dicom",
        headers={"If-None-Match": answered.headers["ETag"]},
    )
    assert (same.status_code, same.content) == (304, b"")
    assert get(web, f"/studies/{example.StudyInstanceUID}", "application/dicom").status_code == 406


def test_a_video_is_sent_as_it_is(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    video = accept(
        write_object(
            *(folder / "v.dcm", FRAMES[0]),
            **named(PixelData=encapsulate([b"two fragments."], fragments_per_frame=2)),
            syntax=MPEG4HP41,
            encode=lambda _: b"not this",
        )
    )
    (sent,) = parts(get(web, path_of(video)))
    assert dcmread(io.BytesIO(sent[1])).file_meta.TransferSyntaxUID == MPEG4HP41
    refused = get(web, f"{path_of(video)}/frames/1", OCTETS)
    assert refused.status_code == 406
    assert "BulkDataURI" in refused.json()["detail"]
    (described,) = get(web, f"{path_of(video)}/metadata").json()
    uri = described["7FE00010"]["BulkDataURI"].removeprefix(f"{web.url}/dicom-web")
    single = get(web, uri, "video/*")
    assert single.headers["content-type"] == f"video/mp4; transfer-syntax={MPEG4HP41}"
    assert single.content == b"two fragments."
    for accepted, kind in (("*/*", "video/mp4"), (OCTETS, "application/octet-stream")):
        sent = parts(get(web, uri, accepted))
        assert sent == [(f"{kind}; transfer-syntax={MPEG4HP41}", single.content)]
    assert get(web, uri, "image/jpeg").status_code == 406


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("application/pdf", "application/pdf"),
        ("model/STL", "model/stl"),
        ("text/html", "application/octet-stream"),
        ("application/pdf; a=b\r\nX: y", "application/octet-stream"),
    ],
)
def test_a_document_has_its_media_type_where_that_is_harmless(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path, kind: str, sent: str
) -> None:
    document = make_object(
        PixelData=None,
        EncapsulatedDocument=b"%PDF" * 300,
        MIMETypeOfEncapsulatedDocument=kind,
    )
    accept(write(document, folder / "document.dcm"))
    path = f"{path_of(document)}/bulkdata/00420011"
    ((content_type, content),) = parts(get(web, path))
    assert (content_type, content) == (sent, document.EncapsulatedDocument)
    single = get(web, path, f"{sent}, text/html")
    assert single.headers["content-type"] == sent
    assert single.headers["content-disposition"] == "attachment"
    assert single.headers["x-content-type-options"] == "nosniff"
    assert get(web, path, "text/html").status_code == 406


def test_metadata_has_what_is_behind_the_pixels(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    signature = Dataset()
    signature.MACIDNumber = 1
    for syntax in (JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        others = named(DigitalSignaturesSequence=[signature], DataSetTrailingPadding=bytes(2000))
        path = write_object(
            folder / "behind.dcm", FRAMES[0], **others, syntax=syntax, encode=LOSSLESS.get(syntax)
        )
        answered = get(web, f"{path_of(accept(path))}/metadata")
        (described,) = answered.json()
        assert list(described)[-2:] == ["7FE00010", "FFFAFFFA"]
        assert value(value(described, "DigitalSignaturesSequence")[0], "MACIDNumber") == [1]
        assert list(described) == sorted(described)


def test_a_damaged_object_breaks_off_what_is_sent_beside_it(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    study = generate_uid()
    good = [accept(write_object(folder / f"g{n}.dcm", FRAMES[n], **named(study))) for n in range(2)]
    received: list[bytes] = []
    damaged = accept(
        write_object(
            *(folder / "d.dcm", FRAMES[0]),
            **named(study),
            syntax=JPEG2000Lossless,
            encode=lambda _: b"no codestream!",
        )
    )
    with (
        web.client() as client,
        client.stream("GET", f"/dicom-web/studies/{study}", headers={"Accept": FILES}) as response,
    ):
        assert response.status_code == 200  # it went out before
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
    content = b"".join(received)
    assert all(str(one.SOPInstanceUID).encode() in content for one in good)
    assert get(web, path_of(damaged), FILES).status_code == 422
    assert parts(get(web, f"/studies/{study}", AS_STORED))[2][1].endswith(
        b"\xfe\xff\xdd\xe0\0\0\0\0"
    )


def test_metadata_has_everything_but_bulk_data(
    web: WebNode, client: DICOMwebClient, compressed: dict[str, Dataset]
) -> None:
    found = client.retrieve_study_metadata(compressed[RLELossless].StudyInstanceUID)
    assert len(found) == len(compressed)
    for described, (syntax, dataset) in zip(found, compressed.items(), strict=True):
        assert value(described, "AvailableTransferSyntaxUID") == [syntax]
        assert value(described, "Rows") == [dataset.Rows]
        uri = described["7FE00010"]["BulkDataURI"]
        (pixels,) = client.retrieve_bulkdata(uri)
        assert pixels == FRAMES.tobytes()
    alone = get(web, f"{path_of(compressed[RLELossless])}/metadata")
    assert alone.headers["content-type"] == "application/dicom+json"
    tag = {"If-None-Match": alone.headers["ETag"]}
    assert get(web, f"{path_of(compressed[RLELossless])}/metadata", headers=tag).status_code == 304


def test_large_values_are_named_also_inside_sequences(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    inside = Dataset()
    inside.LUTDescriptor = [1024, 0, 16]
    inside.LUTData = bytes(range(256)) * 8
    small = Dataset()
    small.LUTDescriptor = [4, 0, 16]
    small.LUTData = bytes(8)
    dataset = make_object(
        VOILUTSequence=[small, inside],
        ICCProfile=b"\1\2" * 4000,
        EncapsulatedDocument=b"%PDF" * 600_000,  # more than is ever held in memory
        TextValue="long " * 300_000,
        PatientName="Grünwald^Zoë",
    )
    dataset.SpecificCharacterSet = "ISO_IR 100"
    accept(write(dataset, folder / "bulk.dcm"))
    (described,) = get(web, f"{path_of(dataset)}/metadata").json()
    assert value(described, "PatientName") == [{"Alphabetic": "Grünwald^Zoë"}]
    assert value(described, "TextValue") == [dataset.TextValue.rstrip()]
    items = value(described, "VOILUTSequence")
    assert "InlineBinary" in items[0]["00283006"]
    for uri, wanted in (
        (items[1]["00283006"]["BulkDataURI"], inside.LUTData),
        (described["00282000"]["BulkDataURI"], dataset.ICCProfile),
        (described["00420011"]["BulkDataURI"], dataset.EncapsulatedDocument),
    ):
        assert uri.startswith(web.url)
        path = uri.removeprefix(f"{web.url}/dicom-web")
        assert parts(get(web, path)) == [("application/octet-stream", wanted)]
        assert get(web, path, "application/octet-stream").content == wanted
    for wrong in ("00283010/9/00283006", "00283010", "00100010", "00091001", "7FE00008"):
        assert get(web, f"{path_of(dataset)}/bulkdata/{wrong}").status_code == 404
    for wrong in ("..%2f..%2fetc", "00283010/0/00283006", "PixelData", "00283010/1/"):
        assert get(web, f"{path_of(dataset)}/bulkdata/{wrong}").status_code in (400, 404)


def test_words_are_little_endian_whatever_they_were(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    table = Dataset()
    table.LUTDescriptor = [600, 0, 16]
    table.add_new("LUTData", "OW", np.arange(600, dtype=">u2").tobytes())
    dataset = accept(
        write_object(
            *(folder / "big.dcm", FRAMES[0]),
            **named(VOILUTSequence=[table]),
            syntax=ExplicitVRBigEndian,
        )
    )
    answered = get(web, f"{path_of(dataset)}/bulkdata/00283010/1/00283006")
    assert parts(answered)[0][1] == np.arange(600, dtype="<u2").tobytes()


def test_metadata_survives_values_that_break_their_vr(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    dataset = make_object(SliceThickness="1.5", ImagePositionPatient=["1", "2", "3"])
    path = write(dataset, folder / "broken.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.5 ", b"1,5 "))
    dataset.RecommendedDisplayFrameRateInFloat = 1.0
    accept(path)
    (described,) = get(web, f"{path_of(dataset)}/metadata").json()
    assert "00180050" not in described
    assert value(described, "ImagePositionPatient") == [1, 2, 3]


def test_a_client_retrieves_frames(client: DICOMwebClient, compressed: dict[str, Dataset]) -> None:
    for syntax, dataset in compressed.items():
        frames = client.retrieve_instance_frames(*uids(dataset), frame_numbers=[3, 1])
        assert frames == [FRAMES[2].tobytes(), FRAMES[0].tobytes()], syntax


@pytest.mark.parametrize(
    ("accepted", "syntax"),
    [
        (f"{OCTETS}; transfer-syntax=*", JPEG2000Lossless),
        ('multipart/related; type="image/jp2"', JPEG2000Lossless),
        ('multipart/related; type=image/jp2; transfer-syntax="*"', JPEG2000Lossless),
        (f'multipart/related; type="image/*"; transfer-syntax={RLELossless}', RLELossless),
        (f'{OCTETS};q=0.5, multipart/related; type="image/dicom-rle"', RLELossless),
    ],
)
def test_frames_are_sent_as_they_are_stored_where_that_is_accepted(
    web: WebNode, compressed: dict[str, Dataset], accepted: str, syntax: str
) -> None:
    dataset = compressed[syntax]
    kind = {JPEG2000Lossless: "image/jp2", RLELossless: "image/dicom-rle"}[syntax]
    answered = get(web, f"{path_of(dataset)}/frames/2", accepted)
    stored = list(generate_frames(dataset.PixelData, number_of_frames=3))
    assert f'type="{kind}"' in answered.headers["content-type"]
    assert parts(answered) == [(f"{kind}; transfer-syntax={syntax}", stored[1])]


def test_lossy_colour_is_sent_and_described_as_rgb(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    import imagecodecs

    dataset = accept(
        write_object(
            *(folder / "colour.dcm", colours()),
            **named(PhotometricInterpretation="YBR_FULL_422"),
            syntax=JPEGBaseline8Bit,
            encode=lambda frame: imagecodecs.jpeg8_encode(frame, level=95),
        )
    )
    (described,) = get(web, f"{path_of(dataset)}/metadata").json()
    assert value(described, "PhotometricInterpretation") == ["RGB"]
    ((_, content),) = parts(get(web, f"{path_of(dataset)}/frames/1"))
    sent = np.frombuffer(content, np.uint8).reshape(colours().shape).astype(int)
    assert np.abs(sent - colours()).max() < 24
    single = get(web, f"{path_of(dataset)}/frames/1", "application/octet-stream")
    assert single.content == content


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("4", 404),
        ("1,2,3,4", 404),
        ("0", 400),
        ("-1", 400),
        ("1,,2", 400),
        ("one", 400),
        ("1,1,1,1", 400),
        ("1," * 2_000 + "1", 400),
        ("999999999999", 400),
    ],
)
def test_wrong_frame_numbers_are_problems(
    web: WebNode, compressed: dict[str, Dataset], frames: str, status: int
) -> None:
    answered = get(web, f"{path_of(compressed[RLELossless])}/frames/{frames}")
    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/problem+json"


def test_single_bytes_in_big_endian_words_are_in_order(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    frames = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    words = np.frombuffer(frames.tobytes() + b"\0", ">u2").astype("<u2").tobytes()
    path = write_object(
        *(folder / "words.dcm", frames),
        **named(NumberOfFrames=3, PixelData=words),
        syntax=ExplicitVRBigEndian,
    )
    dataset = dcmread(path)
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path)
    accept(path)
    sent = parts(get(web, f"{path_of(dataset)}/frames/1,2,3"))
    assert [content for _, content in sent] == [frame.tobytes() for frame in frames]


def test_one_bit_frames_are_whole_bytes_each(
    web: WebNode, accept: Callable[[Path], Dataset], folder: Path
) -> None:
    frames = np.random.default_rng(0).integers(0, 2, (3, 3, 3), np.uint8)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset = accept(
        write_object(
            *(folder / "bits.dcm", frames),
            **named(NumberOfFrames=3, BitsAllocated=1, BitsStored=1, HighBit=0),
            PixelData=packed,
        )
    )
    sent = parts(get(web, f"{path_of(dataset)}/frames/1,2,3"))
    for (_, content), frame in zip(sent, frames, strict=True):
        assert len(content) == 2
        bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
        assert np.array_equal(bits[:9].reshape(3, 3), frame)


@pytest.mark.parametrize("path", ["", "/metadata", "/frames/1", "/bulkdata/7FE00010", "/rendered"])
def test_what_is_not_kept_here_is_gone_and_who_has_it_is_told(
    elsewhere: WebNode, path: str
) -> None:
    answered = get(elsewhere, f"{path_of(elsewhere.objects[0])}{path}")
    assert answered.status_code == 410
    assert "PACS" in answered.json()["detail"]


@pytest.fixture(scope="module")
def elsewhere(start_web: Callable[..., WebNode]) -> WebNode:
    """Start a node that has lost the pixels of one image to a PACS."""
    sections = {
        "peers": {"PACS": {"host": "127.0.0.1", "port": 104}},
        "retention": {"retrieve_from": "PACS"},
    }
    web = start_web(sections)
    uid = web.objects[0].SOPInstanceUID
    archive_file(web.services.stores, uid).unlink()
    web.evict(uid)
    return web


def test_a_study_that_is_kept_in_part_is_partial_content(elsewhere: WebNode) -> None:
    study = elsewhere.objects[0].StudyInstanceUID
    for path in ("", "/metadata"):
        answered = get(elsewhere, f"/studies/{study}{path}")
        assert answered.status_code == 206
        assert (
            "1 instances are not kept here; retrieve them from PACS" in answered.headers["Warning"]
        )
    thumbnail = get(elsewhere, f"{path_of(elsewhere.objects[0])}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"  # the catalogue keeps it
    # what it is in the catalogue with is found all the same
    assert len(get(elsewhere, f"/studies/{study}/instances").json()) == 4


@pytest.mark.parametrize(
    "path",
    [
        "/studies/..%2f..%2fetc%2fpasswd",
        "/studies/1.2%0d%0aSet-Cookie:%20a=b",
        f"/studies/{'1.' * 40}1",
        "/studies/1.2.x/metadata",
        "/studies/1.2%00/metadata",
        "/studies/1.2/series/%2e%2e/metadata",
    ],
)
def test_hostile_uids_are_refused(web: WebNode, path: str) -> None:
    answered = get(web, path)
    assert answered.status_code in (400, 404), answered.text
    assert answered.headers["content-type"] == "application/problem+json"
    assert "Set-Cookie" not in str(answered.headers)


def test_a_uid_of_another_study_names_nothing(web: WebNode) -> None:
    one, other = web.objects[0], web.objects[5]
    path = path_of(one).replace(str(one.StudyInstanceUID), str(other.StudyInstanceUID))
    for below in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail"):
        assert get(web, path + below).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "accept", "status"),
    [
        ("OPTIONS", "/", "*/*", 404),
        ("HEAD", "/studies/{study}", "*/*", 405),
        ("GET", "/studies/{study}/metadata", "application/dicom+xml", 406),
        ("GET", "/studies/{study}/pixeldata", "*/*", 404),
        ("GET", "/studies/{study}/bulkdata", "*/*", 404),
        ("GET", "/studies/{study}/rendered", 'multipart/related; type="image/jpeg"', 406),
        ("GET", "/studies/{study}/rendered", "text/html, image/gif, video/mp4", 406),
    ],
)
def test_what_is_not_there_is_told_as_documented(
    web: WebNode, method: str, path: str, accept: str, status: int
) -> None:
    path = path.format(study=web.objects[0].StudyInstanceUID)
    with web.client() as client:
        answered = client.request(method, f"/dicom-web{path}", headers={"Accept": accept})
    assert answered.status_code == status
