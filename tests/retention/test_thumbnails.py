"""Thumbnails live as long as their object and its vectors, not as long as its pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import select, update

from cbmir_node.catalog import schema
from cbmir_node.catalog.retention.selection import study_named
from cbmir_node.catalog.vectors.thumbnails import read_thumbnail
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.retention.deletion import delete_studies
from cbmir_node.stores import Stores
from tests.objects import make_object
from tests.retention.conftest import NONE, OpenStores, apply_retention, work_off
from tests.small_node import keep


def thumbnails(stores: Stores) -> dict[tuple[str, int], bytes]:
    table, instances = schema.thumbnails.c, schema.instances.c
    query = select(instances.sop_instance_uid, table.frame_number, table.picture).join(
        schema.instances, instances.id == table.instance
    )
    with stores.catalog.read() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def test_thumbnails_outlive_pixels_and_nothing_else(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(retention=NONE)
    pixels = np.arange(3 * 256, dtype=np.int16).tobytes()
    single, cine = make_object(), make_object(NumberOfFrames=3, PixelData=pixels)
    report = make_object(Rows=None, Columns=None, PixelData=None, Modality="SR")
    one, many, _ = keep(stores, tmp_path, single, cine, report)
    work_off(stores)
    written = thumbnails(stores)
    assert sorted(written) == sorted([(one, 1), (many, 1), (many, 2), (many, 3)])
    for picture in written.values():
        with Image.open(BytesIO(picture)) as image:
            assert (image.format, image.size) == ("JPEG", (16, 16))
    assert read_thumbnail(stores.catalog, many) == written[many, 2]  # the middle one
    assert read_thumbnail(stores.catalog, many, 4) is None
    with stores.catalog.write() as connection:  # as if an older version had made them
        changed = update(schema.thumbnails).values(picture=b"", frame_number=-1)
        connection.execute(changed.where(schema.thumbnails.c.frame_number == 1))
    request_again(stores.catalog, stores.registry.active().row, ["embedded"])
    work_off(stores)
    assert thumbnails(stores) == written
    apply_retention(stores)
    assert list(stores.archive.files()) == []
    assert thumbnails(stores) == written
    study = study_named(stores.catalog, str(cine.StudyInstanceUID))
    delete_studies(stores.catalog, stores.archive, [study])
    assert list(thumbnails(stores)) == [(one, 1)]


def test_an_image_that_a_long_series_does_without_has_none(
    open_stores_with: OpenStores, tmp_path: Path
) -> None:
    stores = open_stores_with(embedding={"images_per_series": 2})
    common = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "PatientID": "P"}
    for first in (1, 5):
        slices = (make_object(**common, InstanceNumber=first + number) for number in range(4))
        keep(stores, tmp_path, *slices)
        work_off(stores)
        assert len(thumbnails(stores)) == 2
