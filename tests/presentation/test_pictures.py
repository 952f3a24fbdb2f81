"""Pictures of stored images: which one stands for a study, and where its pixels come from."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import update

from cbmir_node.catalog import schema
from cbmir_node.errors import NotKeptError, PixelError, SelectionError
from cbmir_node.imaging.decoder_pool import DecoderPool
from cbmir_node.imaging.rendering import Rendering
from cbmir_node.presentation.pictures import Pictures
from cbmir_node.stores import Stores
from cbmir_node.worker import Worker
from tests.objects import make_object
from tests.small_node import archive_file, drain, keep


@pytest.fixture(scope="module")
def pictures(stores: Stores, decoders: DecoderPool) -> Pictures:
    return Pictures(stores, decoders)


def cine(frames: int, **attributes: Any) -> Dataset:
    """Return an object whose frame n is a ramp that begins at n, on a 16 x 16 raster."""
    values = np.arange(256, dtype=np.int16).reshape(16, 16)
    stored = np.stack([np.roll(values, 16 * frame) for frame in range(frames)])
    return make_object(NumberOfFrames=frames, PixelData=stored.tobytes(), **attributes)


def grey(jpeg: bytes) -> np.ndarray:
    with Image.open(BytesIO(jpeg)) as image:
        return np.asarray(image.convert("L")).astype(int)


def test_thumbnails_come_from_the_catalogue_or_else_from_the_archive(
    stores: Stores, pictures: Pictures, tmp_path: Path
) -> None:
    embedded = keep(stores, tmp_path, cine(3))[0]
    with Worker(stores) as worker:
        drain(worker, stores.registry.active())
    rendered = keep(stores, tmp_path, cine(3))[0]
    for number in (None, 1, 2, 3):
        one, other = (pictures.thumbnail(uid, number) for uid in (embedded, rendered))
        assert one == other
        np.testing.assert_allclose(
            grey(one), grey(pictures.rendered(rendered, number or 2, Rendering())), atol=12
        )
    archive_file(stores, embedded).unlink()
    assert pictures.thumbnail(embedded, 3) == pictures.thumbnail(rendered, 3)
    archive_file(stores, rendered).unlink()
    assert pictures.thumbnail(rendered, 3)  # remembered
    with pytest.raises(NotKeptError):
        pictures.values(rendered, 1, 16)


def test_what_cannot_be_shown_says_why(stores: Stores, pictures: Pictures, tmp_path: Path) -> None:
    evicted, damaged, report = keep(
        stores,
        tmp_path,
        make_object(),
        make_object(),
        make_object(Rows=None, Columns=None, PixelData=None, Modality="SR"),
    )
    with stores.catalog.write() as connection:
        row = schema.instances.c.sop_instance_uid == evicted
        connection.execute(update(schema.instances).where(row).values(path=""))
    whole = archive_file(stores, damaged).read_bytes()
    archive_file(stores, damaged).write_bytes(whole[:-100])
    with pytest.raises(NotKeptError, match=r"PACS \(retention.retrieve_from\)"):
        pictures.rendered(evicted, 1, Rendering())
    with pytest.raises(PixelError, match="are needed"):
        pictures.thumbnail(damaged, 1)
    for uid in ("1.2.3", "", f"{damaged}\\{report}"):
        with pytest.raises(SelectionError):
            pictures.path(uid)
    with pytest.raises(SelectionError, match="no image"):
        pictures.thumbnail(report)
    with pytest.raises(SelectionError, match="ask for 1 to 1"):
        pictures.values(keep(stores, tmp_path, make_object())[0], 2, 16)


def test_the_middle_image_of_the_longest_series_stands_for_a_study(
    stores: Stores, pictures: Pictures, tmp_path: Path
) -> None:
    study, axial, scout = generate_uid(), generate_uid(), generate_uid()
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    plans: list[dict[str, Any]] = [
        *({"SeriesInstanceUID": axial, "InstanceNumber": number} for number in (10, 2, 9)),
        {"SeriesInstanceUID": generate_uid()},
        *({"SeriesInstanceUID": scout, "ImageType": localizer} for _ in range(5)),
    ]
    uids = keep(stores, tmp_path, *(make_object(StudyInstanceUID=study, **plan) for plan in plans))
    assert pictures.cover("STUDY", study) == (uids[2], 1)  # 2, 9, 10: not as text
    assert pictures.cover("SERIES", axial) == (uids[2], 1)
    assert pictures.cover("SERIES", scout)[0] in uids[4:]
    long = keep(stores, tmp_path, cine(5))[0]
    assert pictures.cover("IMAGE", long) == (long, 3)
    with pytest.raises(SelectionError, match="no image of the study"):
        pictures.cover("STUDY", "1.2.3")
