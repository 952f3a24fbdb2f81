"""Stored images described for people: what stands beside a picture, read for many at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.reception.representation import frame_count, number_of

_UIDS_AT_ONCE = 5000  # databases limit the parameters of a statement

_patients, _studies = schema.patients.c, schema.studies.c
_series, _instances = schema.series.c, schema.instances.c
_HIERARCHY = schema.instances.join(schema.series).join(schema.studies).join(schema.patients)
_neighbours = schema.instances.alias("neighbours")


@dataclass(frozen=True)
class ImageDescription:
    """An instance and what it belongs to; texts as in the catalogue, empty where unknown.

    Attributes
    ----------
    age_years : float or None
        Patient's age at the study.
    number_of_frames : int
        At least 1.
    images_in_series : int
        Instances of its series.
    kept : bool
        Whether its pixels are in the archive.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    patient_id: str
    patient_name: str
    patient_sex: str
    age_years: float | None
    study_date: str
    modality: str
    body_part_examined: str
    study_description: str
    series_description: str
    accession_number: str
    number_of_frames: int
    images_in_series: int
    kept: bool


@dataclass(frozen=True)
class SeriesImage:
    """One image of a series, as much as paging through it takes.

    Attributes
    ----------
    instance_number : int or None
    number_of_frames : int
        At least 1.
    kept : bool
        Whether its pixels are in the archive.
    """

    sop_instance_uid: str
    instance_number: int | None
    number_of_frames: int
    kept: bool


def describe_images(
    catalog: Catalog, sop_instance_uids: Collection[str]
) -> dict[str, ImageDescription]:
    """Describe stored images in one query, by SOP Instance UID; unknown ones are left out."""
    uids = list(dict.fromkeys(sop_instance_uids))
    found: dict[str, ImageDescription] = {}
    with catalog.read() as connection:
        for part in _parts(uids):
            query = _descriptions().where(_instances.sop_instance_uid.in_(part))
            found.update(
                {row.sop_instance_uid: _described(row) for row in connection.execute(query)}
            )
    return found


def images_of_series(catalog: Catalog, series_instance_uid: str, limit: int) -> list[SeriesImage]:
    """Return the images of a series by Instance Number, those without one last, at most `limit`.

    Objects without pixels, such as reports, are no images and are left out.
    """
    query = (
        select(
            _instances.sop_instance_uid,
            _instances.instance_number,
            _instances.number_of_frames,
            _instances.path,
        )
        .select_from(schema.instances.join(schema.series))
        .where(_series.series_instance_uid == series_instance_uid, _instances.has_pixels)
        .order_by(_instances.id)
        .limit(limit)
    )
    with catalog.read() as connection:
        rows = connection.execute(query).all()
    images = [
        SeriesImage(
            row.sop_instance_uid,
            number_of(row.instance_number),
            frame_count(row.number_of_frames),
            bool(row.path),
        )
        for row in rows
    ]
    return sorted(images, key=_place)


def stored_modalities(catalog: Catalog) -> list[str]:
    """Return the modalities that occur, in alphabetical order."""
    query = select(_series.modality).where(_series.modality != "").distinct()
    with catalog.read() as connection:
        return sorted(str(modality) for modality in connection.execute(query).scalars())


def _descriptions() -> Any:
    counted = select(func.count()).where(_neighbours.c.series == _instances.series)
    return select(
        _studies.study_instance_uid,
        _series.series_instance_uid,
        _instances.sop_instance_uid,
        _patients.patient_id,
        _patients.patient_name,
        _patients.patient_sex,
        _studies.age_years,
        _studies.study_date,
        _series.modality,
        _series.body_part_examined,
        _studies.study_description,
        _series.series_description,
        _studies.accession_number,
        _instances.number_of_frames,
        counted.scalar_subquery().label("images_in_series"),
        _instances.path,
    ).select_from(_HIERARCHY)


def _described(row: Row[Any]) -> ImageDescription:
    values = dict(row._mapping)
    path = values.pop("path")
    values["number_of_frames"] = frame_count(values["number_of_frames"])
    return ImageDescription(**values, kept=bool(path))


def _place(image: SeriesImage) -> tuple[bool, int]:
    return image.instance_number is None, image.instance_number or 0


def _parts(uids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(uids), _UIDS_AT_ONCE):
        yield uids[start : start + _UIDS_AT_ONCE]
