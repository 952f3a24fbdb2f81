"""C-FIND (PS3.4 Annex C): chooses who answers, and turns errors into statuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pynetdicom.sop_class import PatientRootQueryRetrieveInformationModelFind

from cbmir_node.answers.data_sets import make_answer
from cbmir_node.answers.private_elements import ELEMENT_OF_FIELD
from cbmir_node.answers.similar import SimilaritySearcher
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.keys import Level
from cbmir_node.catalog.query.hierarchy import find
from cbmir_node.catalog.reception.records import attribute_text
from cbmir_node.config import Settings
from cbmir_node.dicom.contexts import COMBINED_DATE_TIMES, RELATIONAL_QUERIES
from cbmir_node.dicom.keys import decoded_identifier, pending_status, read_keys, require_unique_keys
from cbmir_node.dicom.similar import similar_matches
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from cbmir_node.dicom.statistics import Statistics
from cbmir_node.dicom.statuses import RefusedRequestError, Status, failure
from cbmir_node.errors import (
    CatalogError,
    CbmirError,
    NotEmbeddedError,
    QueryError,
    UnknownExampleError,
)

_log = logging.getLogger(__name__)

_PATIENT_ROOT: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
_STUDY_ROOT: tuple[Level, ...] = ("STUDY", "SERIES", "IMAGE")
_UNSENT_RESPONSES = 32

_STATUS_OF_ERROR: tuple[tuple[type[Exception], Status], ...] = (
    (UnknownExampleError, Status.UNKNOWN_EXAMPLE),
    (NotEmbeddedError, Status.EXAMPLE_NOT_EMBEDDED),
    (QueryError, Status.IDENTIFIER_MISMATCH),
    (CatalogError, Status.OUT_OF_RESOURCES),
    (MemoryError, Status.OUT_OF_RESOURCES),
    (CbmirError, Status.UNABLE_TO_PROCESS),
)

Response = tuple[int | Dataset, Dataset | None]


@dataclass(frozen=True)
class FindService:
    """Answers C-FIND requests.

    Parameters
    ----------
    settings : Settings
        Titles, limits and options; who keeps what is not kept here.
    catalog : Catalog
        What is known.
    search : SimilaritySearcher
        Finds similar studies.
    statistics : Statistics
        Counts what was answered.
    """

    settings: Settings
    catalog: Catalog
    search: SimilaritySearcher
    statistics: Statistics

    def respond(self, event: Any) -> Iterator[Response]:
        """Yield the responses to a pynetdicom C-FIND event, short of the final success."""
        association = event.assoc
        caller, level, answers = association.requestor.ae_title, "", 0
        status = int(Status.CANCELLED)  # unless this generator is heard to its end
        try:
            identifier = decoded_identifier(event.request.Identifier, event.context.transfer_syntax)
            level = attribute_text(identifier, "QueryRetrieveLevel")
            for response in self._matches(event, identifier):
                if event.is_cancelled:
                    yield status, None
                    return
                yield response
                answers += 1
                if answers % _UNSENT_RESPONSES == 0:
                    association.wait_until_sent()
            status = int(Status.SUCCESS)
        except Exception as error:  # whatever it is, the peer must get its final response
            command = _failure_of(error)
            status = command.Status
            _log.warning("C-FIND from %s: 0x%04X %s", caller, status, command.ErrorComment)
            yield command, None
        finally:
            self.statistics.count_find(association.view, status)
            if status in (Status.SUCCESS, Status.CANCELLED):
                _log.info(
                    "C-FIND from %s: 0x%04X, %s level, %d answers",
                    *(caller, status, level, answers),
                )

    def _matches(self, event: Any, identifier: Dataset) -> Iterator[Response]:
        sop_class = event.context.abstract_syntax
        if sop_class == SIMILARITY_FIND:
            return self._similar(identifier, private_class=True)
        if (
            event.assoc.view == "similarity"
            and attribute_text(identifier, "QueryRetrieveLevel") == "STUDY"
        ):
            return self._similar(identifier, private_class=False)
        patient_root = sop_class == PatientRootQueryRetrieveInformationModelFind
        return self._ordinary(
            identifier,
            _PATIENT_ROOT if patient_root else _STUDY_ROOT,
            relational=event.assoc.has_option(sop_class, RELATIONAL_QUERIES),
            combined_date_times=event.assoc.has_option(sop_class, COMBINED_DATE_TIMES),
        )

    def _similar(self, identifier: Dataset, *, private_class: bool) -> Iterator[Response]:
        yield from similar_matches(
            identifier, self.catalog, self.search, self.settings, private_class=private_class
        )

    def _ordinary(
        self,
        identifier: Dataset,
        levels: tuple[Level, ...],
        *,
        relational: bool,
        combined_date_times: bool,
    ) -> Iterator[Response]:
        """Yield ordinary matches, newest studies first.

        Beyond the limit the matches so far are followed by 0xA700: the only status for it that
        PS3.4 C.4.1.1.4 gives these SOP classes (0xB001 belongs to Repository Query).
        """
        keys = read_keys(identifier, levels, relational=relational)
        if not relational:
            require_unique_keys(keys, root=levels[0])
        limit = self.settings.dicom.max_find_results
        matches = find(
            *(self.catalog, keys.level, keys.matching, keys.requested, limit + 1),
            combined_date_times=combined_date_times,
        )
        for match in matches[:limit]:
            yield int(pending_status(keys)), make_answer(match, keys, self.settings)
        if len(matches) > limit:
            raise RefusedRequestError(
                Status.OUT_OF_RESOURCES, f"more than {limit} matches; narrow the query"
            )


def _failure_of(error: Exception) -> Dataset:
    if isinstance(error, RefusedRequestError):
        return failure(error.status, str(error), *error.offending)
    for kind, status in _STATUS_OF_ERROR:
        if isinstance(error, kind):
            return failure(status, str(error), *_named_key(error))
    # the peer must get an answer, and its user a hint, whatever goes wrong here
    _log.error("C-FIND failed", exc_info=error)
    return failure(Status.UNABLE_TO_PROCESS, "internal error; see the log of the node")


def _named_key(error: Exception) -> list[int]:
    """Return the tag of the private element at fault, or of the key a message begins with."""
    if isinstance(error, QueryError) and error.field in ELEMENT_OF_FIELD:
        return [ELEMENT_OF_FIELD[error.field].tag]
    keyword = str(error).partition(":")[0]
    tag = tag_for_keyword(keyword.partition(".")[0])
    return [] if tag is None else [tag]
