"""QIDO-RS: what matches, what is returned of it, in which pages, and what is told beside it."""

from __future__ import annotations

from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from sqlalchemy import event

from tests.objects import make_object
from tests.small_node import keep
from tests.web.conftest import WebNode
from tests.web.dicomweb.asking import get, value


@pytest.fixture
def client(web: WebNode) -> DICOMwebClient:
    return DICOMwebClient(f"{web.url}/dicom-web")


def patients(found: list[dict[str, Any]]) -> list[str]:
    return [value(one, "PatientID")[0] for one in found]


def test_a_client_searches_at_each_level_and_below_what_it_found(
    web: WebNode, client: DICOMwebClient
) -> None:
    head = web.objects[0]
    (study,) = client.search_for_studies(search_filters={"StudyInstanceUID": head.StudyInstanceUID})
    assert value(study, "NumberOfStudyRelatedSeries") == [2]
    assert value(study, "NumberOfStudyRelatedInstances") == [4]
    assert value(study, "ModalitiesInStudy") == ["CT"]
    assert value(study, "InstanceAvailability") == ["ONLINE"]
    assert "00080052" not in study  # Query/Retrieve Level belongs to C-FIND
    series = client.search_for_series(head.StudyInstanceUID)
    assert {value(one, "SeriesNumber")[0] for one in series} == {1, 2}
    assert "00100020" not in series[0]  # the path names the study
    instances = client.search_for_instances(head.StudyInstanceUID, head.SeriesInstanceUID)
    assert [value(one, "InstanceNumber") for one in instances] == [[1], [2]]
    (url,) = value(instances[0], "RetrieveURL")
    assert url.startswith(f"{web.url}/dicom-web/studies/{head.StudyInstanceUID}/series/")
    found = client.retrieve_instance(
        *(value(instances[0], key)[0] for key in ("StudyInstanceUID", "SeriesInstanceUID")),
        value(instances[0], "SOPInstanceUID")[0],
    )
    assert found.PixelData == head.PixelData


@pytest.mark.parametrize(
    ("path", "query", "found"),
    [
        ("/studies", {"PatientID": "P2"}, ["P2"]),
        ("/studies", {"00100020": "P2"}, ["P2"]),
        ("/studies", {"PatientName": "*rown*"}, ["P2"]),
        ("/studies", {"StudyDate": "20240201-"}, ["P1"]),
        ("/studies", {"ModalitiesInStudy": "MR"}, ["P3"]),
        ("/studies", {"ModalitiesInStudy": "MR,XA"}, ["P3"]),  # as OHIF asks
        ("/studies", {"ModalitiesInStudy": ["U*", "MR,"]}, ["P3", "P4"]),
        ("/studies", {"PatientID": "P2,P3"}, []),  # a comma may be part of a text
        ("/studies", {"PatientName": "", "AccessionNumber": "A4"}, ["P3"]),
        ("/studies", {"PatientName": "ann ad"}, []),
        ("/studies", {"PatientName": "ann ad", "fuzzymatching": "true"}, ["P1", "P1"]),
        ("/studies", {"PatientName": "ann bob", "fuzzymatching": "true"}, []),
        ("/series", {"PatientID": "P3"}, ["P3"]),
        ("/instances", {"NumberOfFrames": "3"}, ["P4"]),
    ],
)
def test_attributes_match(web: WebNode, path: str, query: dict[str, str], found: list[str]) -> None:
    answered = get(web, path, **query)
    assert answered.status_code == (200 if found else 204), answered.text
    assert patients(answered.json() if found else []) == found


def test_uids_are_listed_by_comma_backslash_or_repetition(web: WebNode) -> None:
    uids = [str(one.StudyInstanceUID) for one in web.objects[4:7]]
    for query in (",".join(uids), "\\".join(uids), uids):
        assert len(get(web, "/studies", StudyInstanceUID=query).json()) == 3


def test_attributes_inside_a_sequence_match_and_are_returned(web: WebNode) -> None:
    item = make_object()
    item.RequestAttributesSequence = [make_request("R7", "S7")]
    keep(web.services.stores, web.node.settings.data_dir, item)
    for name in ("RequestAttributesSequence.RequestedProcedureID", "00400275.00401001"):
        (found,) = get(web, "/series", **{name: "R7"}).json()
        (request,) = value(found, "RequestAttributesSequence")
        assert value(request, "ScheduledProcedureStepID") == ["S7"]


def make_request(requested: str, scheduled: str) -> Dataset:
    request = Dataset()
    request.RequestedProcedureID = requested
    request.ScheduledProcedureStepID = scheduled
    return request


def test_pages_follow_each_other_and_say_that_there_is_more(web: WebNode) -> None:
    everything = [value(one, "SOPInstanceUID") for one in get(web, "/instances").json()]
    paged = []
    for offset in range(0, len(everything), 3):
        page = get(web, "/instances", limit=3, offset=offset)
        paged += [value(one, "SOPInstanceUID") for one in page.json()]
        assert ("additional results" in page.headers.get("Warning", "")) == (
            offset + 3 < len(everything)
        )
    assert paged == everything
    assert get(web, "/instances", offset=10**12).status_code == 204
    assert get(web, "/instances", limit=0).status_code == 204
    assert len(get(web, "/instances", limit=10**15).json()) == len(everything)


def test_fields_are_included_by_keyword_tag_list_and_all(web: WebNode) -> None:
    query = {"PatientID": "P2"}
    (plain,) = get(web, "/studies", **query).json()
    assert "00101010" not in plain
    for names in ("PatientAge,InstitutionName", ["00101010", "InstitutionName"], "all"):
        (found,) = get(web, "/studies", includefield=names, **query).json()
        assert {"00101010", "00080080"} <= set(found)
    assert "00080060" not in found  # of a series, which a study's answer does not have


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "-1"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"offset": "1e9"}, "offset"),
        ({"fuzzymatching": "yes"}, "fuzzymatching"),
        ({"PatientID": ["P1", "P2"]}, "PatientID"),
        ({"StudyDate": "2024-01-02T00"}, "StudyDate"),
        ({"PatientID": "P1\0"}, "NUL"),
        ({"PatientName": "a " * 20, "fuzzymatching": "true"}, "name"),
        ({"similar-to": "../../etc"}, "similar-to"),
        ({"similar-to": "1.2", "k": "0"}, "k"),
        ({"similar-to": "1.2", "method": "psychic"}, "method"),
        ({"similar-to": "1.2", "same-tags": "Mood"}, "same-tags"),
    ],
)
def test_a_wrong_value_is_a_problem_that_names_it(
    web: WebNode, query: dict[str, Any], field: str
) -> None:
    answered = get(web, "/studies", **query)
    assert answered.status_code == 400
    assert answered.headers["content-type"] == "application/problem+json"
    assert field in answered.json()["detail"]


def test_what_is_not_supported_is_ignored_and_told(web: WebNode) -> None:
    hostile = "x\r\nSet-Cookie: a=b"
    answered = get(
        web,
        "/studies",
        **{"PatientID": "P2", "colour": "red", "PatientComments": "x", hostile: "1"},
    )
    assert patients(answered.json()) == ["P2"]
    told = answered.headers["Warning"]
    assert "ignored: colour 1 more" in told
    assert "not matched: PatientComments" in told
    assert "Set-Cookie" not in str(answered.headers)


def test_only_json_is_answered(web: WebNode) -> None:
    xml = 'multipart/related; type="application/dicom+xml"'
    assert get(web, "/studies", xml).status_code == 406
    assert get(web, "/studies", f"{xml}, application/json;q=0.1").status_code == 200
    with web.client() as client:  # the plus sign may stand as it is
        url = "/dicom-web/studies?limit=1&accept=application/dicom+json"
        assert client.get(url, headers={"Accept": xml}).is_success


def test_a_page_of_instances_is_found_without_sorting_all(web: WebNode) -> None:
    statements: list[tuple[str, Any]] = []

    def remember(*execution: Any) -> None:
        statements.append(execution[2:4])

    with web.services.stores.catalog.read() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", remember)
    try:
        get(web, "/instances", limit=5)
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    statement, parameters = next(pair for pair in statements if "LIMIT" in pair[0])
    with web.services.stores.catalog.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert not any("TEMP B-TREE" in row[-1] for row in plan), plan


def test_similar_studies_come_best_first_with_the_private_block(
    web: WebNode, client: DICOMwebClient
) -> None:
    uid = web.objects[5].StudyInstanceUID
    found = get(web, "/studies", **{"similar-to": uid}).json()
    assert [one["00791002"]["Value"] for one in found] == [[n + 1] for n in range(len(found))]
    scores = [one["00791001"]["Value"][0] for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(one["00790010"]["Value"] == ["CBMIR-NODE 1.0"] for one in found)
    assert uid not in [value(one, "StudyInstanceUID")[0] for one in found]
    assert {"00791003", "00791005", "00791006", "00791007", "00791008"} <= set(found[0])
    # any client of QIDO-RS can ask
    again = client.search_for_studies(search_filters={"similar-to": uid})
    assert [value(one, "StudyInstanceUID") for one in again] == [
        value(one, "StudyInstanceUID") for one in found
    ]
    second = get(web, "/studies", **{"similar-to": uid, "limit": 1, "offset": 1}).json()
    assert [one["00791002"]["Value"] for one in second] == [[2]]


def test_similar_series_and_instances_are_filtered(web: WebNode) -> None:
    example = web.objects[5]
    series = get(web, "/series", **{"similar-to": example.SeriesInstanceUID, "Modality": "MR"})
    assert patients(series.json()) == ["P3"]
    query = {"similar-to": example.SOPInstanceUID, "k": 2, "method": "euclidean"}
    images = get(web, "/instances", **query).json()
    assert [one["00791005"]["Value"] for one in images] == [["EUCLIDEAN"]] * 2
    assert get(web, "/studies", **{"similar-to": "1.2.3"}).status_code == 404
    none = get(web, "/studies", **{"similar-to": example.StudyInstanceUID, "PatientID": "nobody"})
    assert none.status_code == 204


def test_what_results_should_not_look_like_is_left_out(web: WebNode) -> None:
    liked, disliked = web.objects[5].StudyInstanceUID, web.objects[6].StudyInstanceUID
    query = {"similar-to": liked, "same-patient": "true"}
    found = get(web, "/studies", **query).json()
    refined = get(web, "/studies", **query, **{"not-similar-to": disliked}).json()
    uids = [[value(one, "StudyInstanceUID")[0] for one in answer] for answer in (found, refined)]
    assert set(uids[0]) - set(uids[1]) == {disliked}
    alone = get(web, "/studies", **{"not-similar-to": disliked})
    assert alone.status_code == 400
