"""Another PACS that speaks DICOMweb: QIDO-RS and WADO-RS (PS3.18 10.4 and 10.6)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError

from cbmir_node.backfill.pacs import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Answer,
    ListedInstance,
    ListedSeries,
    ListedStudy,
    StudyQuery,
    listed_instance,
    listed_series,
    listed_study,
)
from cbmir_node.dicom.client.fetch import Retrieval, Retrieved
from cbmir_node.errors import CbmirError, OutOfSpaceError, PeerRefusedError, PeerUnreachableError
from cbmir_node.intake import Intake

_PAGE = 100
_AS_STORED = (("application/dicom", "*"),)  # PS3.18 8.7.3.5.2: any transfer syntax
_UNAUTHORIZED = (401, 403)
_TOO_MANY = 413
_LATER = (408, 429, *range(500, 600))
_ALWAYS_RETURNED = ("StudyInstanceUID", "StudyDate", "StudyTime", "ModalitiesInStudy")


class DicomWebPacs:
    """A PACS behind a URL.

    Parameters
    ----------
    url : str
        Of the DICOMweb service, without a password.
    intake : Intake
        Where objects go.
    timeout : float
        Longest wait for an answer or a part of one, seconds.
    environment : mapping of str to str
        ``DICOMWEB_TOKEN`` is sent as a bearer token, ``DICOMWEB_USER`` and ``DICOMWEB_PASSWORD`` as
        Basic authentication; without them ``~/.netrc`` is asked, as by any user of ``requests``.
    """

    def __init__(
        self, url: str, intake: Intake, *, timeout: float, environment: Mapping[str, str]
    ) -> None:
        self.name = url.rstrip("/")
        session = requests.Session()
        session.auth = _authentication(environment)
        self._client = DICOMwebClient(
            self.name, session=session, permissive_uid=True, timeout=timeout
        )
        self._client.set_http_retry_params(retry=False)  # `PatientPacs` waits longer
        self._intake = intake
        # such a server warns in every page that there are more
        logging.getLogger("dicomweb_client").setLevel(logging.ERROR)

    @property
    def needs_sop_classes(self) -> bool:
        """No: nothing is negotiated."""
        return False

    def studies(self, query: StudyQuery) -> Answer:
        """Search for studies, page by page.

        The last page does not prove that these are all: an Orthanc with ``LimitFindResults`` has no
        more pages then.
        """
        filters = {
            "StudyInstanceUID": query.study_instance_uid,
            "StudyDate": query.study_date,
            "StudyTime": query.study_time,
            "PatientID": query.patient_id,
            "ModalitiesInStudy": query.modality,
        }
        found: dict[str, ListedStudy] = {}
        try:
            for answer in self._pages(self._client.search_for_studies, (), filters, STUDY_KEYS):
                study = listed_study(answer)
                if not (query.undated and study.study_date):
                    found[study.study_instance_uid] = study
        except _TooManyError:
            return Answer(list(found.values()), limited=True)
        return Answer(list(found.values()))

    def series(self, study_instance_uid: str) -> list[ListedSeries]:
        """List the series of a study."""
        search, of_study = self._client.search_for_series, (study_instance_uid,)
        return [listed_series(answer) for answer in self._pages(search, of_study, {}, SERIES_KEYS)]

    def instances(self, study_instance_uid: str, series_instance_uid: str) -> list[ListedInstance]:
        """List the instances of a series."""
        search, of_series = (
            self._client.search_for_instances,
            (study_instance_uid, series_instance_uid),
        )
        return [
            listed_instance(answer, series_instance_uid)
            for answer in self._pages(search, of_series, {}, INSTANCE_KEYS)
        ]

    def _pages(
        self,
        search: Callable[..., list[dict[str, Any]]],
        below: tuple[str, ...],
        filters: Mapping[str, str],
        keys: Sequence[str],
    ) -> Iterator[Dataset]:
        """Iterate over all answers; a server decides itself how many it gives at a time."""
        given = {keyword: value for keyword, value in filters.items() if value}
        offset = 0
        first: dict[str, Any] | None = None
        while True:
            with _translated(self.name):
                page = search(
                    *below, search_filters=given, fields=list(keys), limit=_PAGE, offset=offset
                )
            if not page or page[0] == first:  # the latter where `offset` is ignored
                return
            first = first or page[0]
            offset += len(page)
            for answer in page:
                with _translated(self.name):
                    yield _dataset(answer, (*_ALWAYS_RETURNED, *keys))

    def fetch(self, retrieval: Retrieval, on_image: Callable[[], None]) -> Retrieved:
        """Fetch objects as they are stored there."""
        done = Retrieved()
        try:
            for instance in self._retrieve(retrieval):
                self._keep(instance, done, on_image)
        except requests.HTTPError as error:
            refusal = _translation(self.name, error)
            if error.response is not None and error.response.status_code in _UNAUTHORIZED:
                raise refusal from error
            done.problem = done.problem or str(refusal)
        except requests.ConnectionError as error:
            if not done.images:
                raise _translation(self.name, error) from error
            done.problem = done.problem or str(_translation(self.name, error))
        except (requests.RequestException, InvalidDicomError, ValueError, EOFError) as error:
            done.problem = done.problem or f"the answer cannot be read: {error}"
        return done

    def _retrieve(self, retrieval: Retrieval) -> Iterator[Dataset]:
        study, series = retrieval.study_instance_uid, retrieval.series_instance_uid
        if not series:
            yield from self._client.iter_study(study, media_types=_AS_STORED)
        elif not retrieval.sop_instance_uids:
            yield from self._client.iter_series(study, series, media_types=_AS_STORED)
        for uid in retrieval.sop_instance_uids:
            yield self._client.retrieve_instance(study, series, uid, media_types=_AS_STORED)

    def _keep(self, instance: Dataset, done: Retrieved, on_image: Callable[[], None]) -> None:
        """Store the bytes that came: the library has read them, but also kept them."""
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            file.write(instance.buffer.getbuffer())
            file.flush()
            try:
                self._intake.accept_file(Path(file.name), source=self.name)
            except OutOfSpaceError as error:
                if not self._intake.archive.has_room():
                    raise
                done.problem = done.problem or str(error)
                return
            except CbmirError as error:
                uid = instance.get("SOPInstanceUID", "an object")
                done.problem = done.problem or f"{uid} is refused: {error}"
                return
        done.images += 1
        on_image()


class _TooManyError(PeerRefusedError):
    """The server will not list so many (PS3.18 8.3.4.4)."""


def _authentication(environment: Mapping[str, str]) -> Any:
    token = environment.get("DICOMWEB_TOKEN")
    if token:

        def authorize(request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return authorize
    user = environment.get("DICOMWEB_USER")
    return (user, environment.get("DICOMWEB_PASSWORD", "")) if user else None


def _dataset(answer: Mapping[str, Any], keywords: Sequence[str]) -> Dataset:
    """Read the wanted elements of a DICOM JSON object (PS3.18 Annex F)."""
    names = [f"{tag_for_keyword(keyword):08X}" for keyword in keywords]
    return Dataset.from_json({name: answer[name] for name in names if name in answer})


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except requests.RequestException as error:
        raise _translation(name, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PeerRefusedError(f"{name} answers what is no DICOM JSON: {error}") from error


def _translation(name: str, error: Exception) -> CbmirError:
    """Return the node's own error for one of the library's."""
    response = error.response if isinstance(error, requests.HTTPError) else None
    if response is None:
        return PeerUnreachableError(f"{name} does not answer: {error}")
    said = f"{name} answers {response.status_code} {response.reason}"
    if response.status_code in _UNAUTHORIZED:
        return PeerRefusedError(
            f"{said}: set DICOMWEB_TOKEN, or DICOMWEB_USER and DICOMWEB_PASSWORD, in the "
            "environment"
        )
    if response.status_code == _TOO_MANY:
        return _TooManyError(said)
    if response.status_code in _LATER:
        return PeerUnreachableError(said)
    return PeerRefusedError(said)
