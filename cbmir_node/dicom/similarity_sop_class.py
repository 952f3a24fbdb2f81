"""The private C-FIND SOP class of similarity queries."""

from __future__ import annotations

from pydicom.uid import UID
from pynetdicom.service_class import QueryRetrieveServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

SIMILARITY_FIND = UID("2.25.284295670403067781368888672978503516813")
"""Similarity Information Model – FIND: STUDY, SERIES and IMAGE level similarity."""

if uid_to_service_class(SIMILARITY_FIND) is not QueryRetrieveServiceClass:
    register_uid(
        SIMILARITY_FIND,
        "SimilarityInformationModelFind",
        QueryRetrieveServiceClass,
        dimse_msg_type="C-FIND",
    )
