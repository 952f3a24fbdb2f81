"""Parameters that DICOMweb and the page's API share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field, StringConstraints

from cbmir_node.catalog.keys import StudyRootLevel
from cbmir_node.presentation.examples import MODALITY_PATTERN

Uid = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64),
    Field(description="UID (PS3.5 section 9.1)", examples=["1.2.840.113619.2.1"]),
]
"""As `cbmir_node.archive.header.is_uid` has it."""

ModalityOfPictures = Annotated[
    str,
    Query(
        pattern=rf"^{MODALITY_PATTERN}$",
        description="of PNG and JPEG pictures, as `CR`; a DICOM file says itself",
    ),
]

LevelName = Literal["study", "series", "image"]

LEVEL_OF_NAME: Mapping[LevelName, StudyRootLevel] = {
    "study": "STUDY",
    "series": "SERIES",
    "image": "IMAGE",
}
