"""Results of a search as DICOM JSON (PS3.18 sections 10.6.3.3 and F.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from fastapi import Request, Response
from pydicom import Dataset

from cbmir_node.answers.query_keys import tag_of
from cbmir_node.web.dicomweb.dicom_json import JsonDataset, in_order, json_array, json_dataset
from cbmir_node.web.dicomweb.multipart_writing import started_response
from cbmir_node.web.dicomweb.resources import resource_url, service_url, warning_header

_RETRIEVE_URL = f"{tag_of('RetrieveURL'):08X}"
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def results_response(
    request: Request, answers: Iterable[Dataset], media_type: str, warnings: Sequence[str] = ()
) -> Response:
    """Answer a search; 204 where nothing matches (Table 10.6.3-1).

    Parameters
    ----------
    request : Request
    answers : iterable of Dataset
        As `answers.data_sets.make_answer` makes them.
    media_type : str
        Chosen before.
    warnings : sequence of str
        What the client must be told; empty texts are left out.
    """
    service = service_url(request)
    headers = {**warning_header(service, warnings), "Vary": "Accept"}
    results = iter(answers)
    first = next(results, None)
    if first is None:
        return Response(status_code=204, headers=headers)
    described = _described(chain([first], results), service)
    return started_response(json_array(described), media_type, headers=headers)


def _described(answers: Iterable[Dataset], service: str) -> Iterator[JsonDataset]:
    for answer in answers:
        del answer.QueryRetrieveLevel
        url = resource_url(service, *(str(answer.get(keyword, "")) for keyword in _UIDS))
        yield in_order({**json_dataset(answer), _RETRIEVE_URL: {"vr": "UR", "Value": [url]}})
