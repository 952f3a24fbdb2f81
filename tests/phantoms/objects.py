"""The phantoms as DICOM objects: studies of patients who do not exist."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    OphthalmicPhotography8BitImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from tests.objects import make_object
from tests.phantoms import projections, scopes, sections

_FAMILY_NAMES = (
    *("Albers", "Brandt", "Castell", "Dorn", "Ekholm", "Farrow", "Gruber", "Hollis", "Ivers"),
    *("Jansen", "Keller", "Lindqvist", "Moreau", "Novak", "Okafor", "Pereira", "Quist", "Rossi"),
)
_GIVEN_NAMES = {
    "F": ("Ada", "Clara", "Edith", "Greta", "Ines"),
    "M": ("Ben", "David", "Felix", "Hugo", "Karl"),
}


@dataclass(frozen=True)
class Kind:
    """One sort of study.

    Attributes
    ----------
    series : dict of str to callable
        Series Description and how its pictures are drawn: (random, level, lesion).
    group : int
        Kinds of the same group are of the same patients.
    levels : tuple of float
        One picture each; with `frames` they are the frames of one object.
    studies : int
        How many of them `collection` has.
    """

    sop_class: UID
    modality: str
    body_part: str
    description: str
    series: dict[str, Callable[[np.random.Generator, float, bool], np.ndarray]]
    group: int
    levels: tuple[float, ...] = (0.0,)
    frames: bool = False
    studies: int = 3
    attributes: dict[str, Any] = field(default_factory=dict)


def _head(weighting: str) -> Callable[[np.random.Generator, float, bool], np.ndarray]:
    return functools.partial(_drawn_head, weighting)


def _drawn_head(
    weighting: str, random: np.random.Generator, level: float, lesion: bool
) -> np.ndarray:
    return sections.head(random, level, weighting, lesion)


_HOUNSFIELD = {"RescaleIntercept": -1024, "RescaleType": "HU"}
_RADIOGRAPH = {"WindowCenter": 1950, "WindowWidth": 3000}
KINDS = {
    "CT head": Kind(
        *(CTImageStorage, "CT", "HEAD", "CT head without contrast"),
        {"Axial 5 mm brain": _head("CT")},
        group=0,
        levels=(-0.4, 0.3),
        studies=5,
        attributes={**_HOUNSFIELD, "WindowCenter": 38, "WindowWidth": 90},
    ),
    "MR brain": Kind(
        *(MRImageStorage, "MR", "BRAIN", "MR brain"),
        {"T1 axial": _head("T1"), "T2 axial": _head("T2")},
        group=0,
        levels=(-0.3, 0.3),
        studies=2,
        attributes={"WindowCenter": 450, "WindowWidth": 900},
    ),
    "CT chest": Kind(
        *(CTImageStorage, "CT", "CHEST", "CT thorax with contrast"),
        {"Axial mediastinum": sections.chest},
        group=1,
        levels=(0.45, 0.8),
        attributes={**_HOUNSFIELD, "WindowCenter": 40, "WindowWidth": 400},
    ),
    "CR chest": Kind(
        *(ComputedRadiographyImageStorage, "CR", "CHEST", "Chest PA"),
        {"Chest PA": projections.chest},
        group=1,
        attributes={**_RADIOGRAPH, "ViewPosition": "PA"},
    ),
    "CT abdomen": Kind(
        *(CTImageStorage, "CT", "ABDOMEN", "CT abdomen portal venous"),
        {"Axial soft tissue": sections.abdomen},
        group=2,
        levels=(-0.5, 0.5),
        studies=8,
        attributes={**_HOUNSFIELD, "WindowCenter": 60, "WindowWidth": 380},
    ),
    "US liver": Kind(
        *(UltrasoundMultiFrameImageStorage, "US", "ABDOMEN", "Ultrasound upper abdomen"),
        {"Gallbladder": scopes.liver},
        group=2,
        levels=(-0.9, -0.3, 0.3, 0.9),
        frames=True,
        studies=2,
        attributes={"FrameTime": "40"},
    ),
    "CT pelvis": Kind(
        *(CTImageStorage, "CT", "PELVIS", "CT pelvis with contrast"),
        {"Axial soft tissue": sections.pelvis},
        group=3,
        levels=(-0.7, 0.5),
        attributes={**_HOUNSFIELD, "WindowCenter": 60, "WindowWidth": 400},
    ),
    "MR lumbar spine": Kind(
        *(MRImageStorage, "MR", "LSPINE", "MR lumbar spine"),
        {"T2 sagittal": sections.lumbar_spine},
        group=4,
        levels=(-0.5, 0.0),
        attributes={"WindowCenter": 430, "WindowWidth": 860},
    ),
    "CR hand": Kind(
        *(ComputedRadiographyImageStorage, "CR", "HAND", "Hand PA"),
        {"Hand PA": projections.hand},
        group=5,
        studies=4,
        attributes={"WindowCenter": 1350, "WindowWidth": 2500},
    ),
    "DX knee": Kind(
        *(DigitalXRayImageStorageForPresentation, "DX", "KNEE", "Knee AP"),
        {"Knee AP": projections.knee},
        group=6,
        attributes={"WindowCenter": 1300, "WindowWidth": 2500},
    ),
    "MG breast": Kind(
        *(DigitalMammographyXRayImageStorageForPresentation, "MG", "BREAST", "Mammography"),
        {"R MLO": projections.breast},
        group=7,
        attributes={"WindowCenter": 1500, "WindowWidth": 2800, "PatientSex": "F"},
    ),
    "OP fundus": Kind(
        *(OphthalmicPhotography8BitImageStorage, "OP", "EYE", "Fundus photography"),
        {"Macula centred": scopes.fundus},
        group=8,
    ),
}


def study(name: str, number: int, *, seed: int = 0) -> list[Dataset]:
    """Return the images of one study.

    Parameters
    ----------
    name : str
        One of `KINDS`.
    number : int
        Which patient, from 0. Every third has a lesion.
    seed : int
        Another seed draws other patients.
    """
    kind = KINDS[name]
    choice = np.random.default_rng([seed, kind.group, number])
    sex = kind.attributes.get("PatientSex") or str(choice.choice(["F", "M"]))
    family = _FAMILY_NAMES[(kind.group * 4 + number + seed) % len(_FAMILY_NAMES)]
    birth, key = int(choice.integers(1938, 2004)), _key(name, number, seed)
    year, month, day = 2021 + number % 5, int(choice.integers(1, 13)), int(choice.integers(1, 29))
    place = list(KINDS).index(name)
    common: dict[str, Any] = {
        "SOPClassUID": kind.sop_class,
        "StudyInstanceUID": _uid("study", key),
        "PatientID": f"PH{seed}{kind.group:02d}{number:02d}",
        "PatientName": f"{family}^{choice.choice(_GIVEN_NAMES[sex])}",
        "PatientSex": sex,
        "PatientBirthDate": f"{birth}{int(choice.integers(1, 13)):02d}15",
        "PatientAge": f"{year - birth:03d}Y",
        "StudyDate": f"{year}{month:02d}{day:02d}",
        "StudyID": f"{place}{number:02d}",
        "AccessionNumber": f"ACC{seed}{place:02d}{number:03d}",
        "StudyDescription": kind.description,
        "InstitutionName": "Phantom Hospital",
        "Manufacturer": "cbmir-node phantoms",
        "Modality": kind.modality,
        "BodyPartExamined": kind.body_part,
        **kind.attributes,
    }
    images = []
    for series_number, (description, draw) in enumerate(kind.series.items(), start=1):
        shape_seed = [seed, place, number]
        pictures = [
            draw(np.random.default_rng(shape_seed), level, has_lesion(number))
            for level in kind.levels
        ]
        objects = [np.stack(pictures)] if kind.frames else pictures
        for instance, picture in enumerate(objects, start=1):
            images.append(
                make_object(
                    **common,
                    **_pixels(picture, kind),
                    SeriesInstanceUID=_uid("series", key, description),
                    SOPInstanceUID=_image_uid(key, description, instance),
                    SeriesDescription=description,
                    SeriesNumber=series_number,
                    InstanceNumber=instance,
                    **_place(kind, instance, key),
                )
            )
    return images


def has_lesion(number: int) -> bool:
    """Tell whether a patient is ill."""
    return number % 3 == 1


def image_uids(name: str, number: int, *, seed: int = 0) -> list[str]:
    """Return the SOP Instance UIDs of `study` without drawing it."""
    kind, key = KINDS[name], _key(name, number, seed)
    instances = range(1, 2 if kind.frames else len(kind.levels) + 1)
    return [_image_uid(key, series, instance) for series in kind.series for instance in instances]


def collection(*, seed: int = 0) -> Iterator[Dataset]:
    """Yield the images of some studies of every kind."""
    for name, kind in KINDS.items():
        for number in range(kind.studies):
            yield from study(name, number, seed=seed)


def _place(kind: Kind, instance: int, key: str) -> dict[str, Any]:
    """Return where a slice lies in the patient; a projection lies nowhere."""
    if kind.modality not in {"CT", "MR"}:
        return {}
    return {
        "FrameOfReferenceUID": _uid("frame of reference", key),
        "PixelSpacing": [1.2, 1.2],
        "SliceThickness": 5,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-192, -192, 60 * instance],
    }


def _key(name: str, number: int, seed: int) -> str:
    return f"{seed}-{name}-{number}"


def _image_uid(key: str, series: str, instance: int) -> str:
    return _uid("image", key, series, str(instance))


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["cbmir-node phantoms", *parts]))


def _pixels(values: np.ndarray, kind: Kind) -> dict[str, Any]:
    if values.dtype == np.uint8:
        return {
            "Rows": values.shape[-3],
            "Columns": values.shape[-2],
            "NumberOfFrames": len(values) if kind.frames else None,
            "SamplesPerPixel": 3,
            "PlanarConfiguration": 0,
            "PhotometricInterpretation": "RGB",
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "RescaleIntercept": None,
            "RescaleSlope": None,
            "PixelData": values.tobytes(),
        }
    stored = np.clip(values - kind.attributes.get("RescaleIntercept", 0), 0, 4095)
    return {
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": stored.astype("<u2").tobytes(),
    }
