"""Fields that several requests and answers of the page's API share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Token = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,128}$"),
    Field(description="what `POST /api/examples` answered"),
]
FrameNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="from 1")]


class Answer(BaseModel):
    """What the API answers with; its fields are always all there."""

    model_config = ConfigDict(frozen=True)


class Prediction(Answer):
    """A class and how probable the model thinks it."""

    label: str
    probability: float = Field(ge=0, le=1)


class PatientAndStudy(Answer):
    """What stands beside a picture; texts as DICOM has them, empty where unknown."""

    patient_id: str
    patient_name: str = Field(description="component groups joined by =, components by ^")
    patient_sex: str
    age_years: float | None = Field(description="at the study")
    study_date: str = Field(description="YYYYMMDD")
    modality: str
    body_part_examined: str
    study_instance_uid: str
    sop_instance_uid: str
    number_of_frames: int


class StoredImage(PatientAndStudy):
    """An image of the node."""

    series_instance_uid: str
    frame_number: int = Field(description="the frame that was compared, or that stands for it")
    study_description: str
    series_description: str
    accession_number: str
    images_in_series: int = Field(description="objects of its series")
    kept: bool = Field(description="whether its pixels are here; otherwise it cannot be opened")
