"""Examples from files that the node need not have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from cbmir_node.catalog.reception.records import age_in_years, patient_identity, read_attributes
from cbmir_node.catalog.vectors.rows import EMBEDDING, FrameVectors
from cbmir_node.search.query import Example


def example_from_frames(
    name: str, frames: Sequence[FrameVectors], attributes: Dataset, model_sha256: str
) -> Example:
    """Build an example from an object's frames and header.

    Parameters
    ----------
    name : str
        What messages call it, such as the file's name.
    frames : sequence of FrameVectors
        At least one, as `cbmir_node.vectorizing.frame_vectors` makes them.
    attributes : Dataset
        The object's attributes of the catalogue (`catalog.reception.records.RECORD_KEYWORDS`).
    model_sha256 : str
        What they were embedded with.
    """
    values = read_attributes(attributes)
    patient, study, series = values["PATIENT"], values["STUDY"], values["SERIES"]
    codes = [frame.code for frame in frames if frame.code is not None]
    return Example(
        "IMAGE",
        name,
        np.stack([frame.spaces[EMBEDDING] for frame in frames]),
        model_sha256=model_sha256,
        study_instance_uid=study["study_instance_uid"],
        patient_identity=patient_identity(values),
        layers={
            space: np.stack([frame.spaces[space] for frame in frames])
            for space in frames[0].spaces
            if space != EMBEDDING
        },
        codes=np.stack([np.frombuffer(code, np.uint8) for code in codes]) if codes else None,
        predictions=[
            (frame.label, frame.probability)
            for frame in frames
            if frame.label is not None and frame.probability is not None
        ],
        tags={
            "Modality": series["modality"],
            "BodyPartExamined": series["body_part_examined"],
            "PatientSex": patient["patient_sex"],
        },
        age_years=age_in_years(
            study["patient_age"], patient["patient_birth_date"], study["study_date"]
        ),
    )
