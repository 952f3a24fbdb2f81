"""Of a long series a few images are embedded, spread evenly, however it arrives."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import InstalledModel, ModelRegistry
from cbmir_node.catalog.reception.records import InstanceRecord
from cbmir_node.catalog.reception.registration import register
from cbmir_node.catalog.reception.representation import is_representative, sampling_order
from cbmir_node.catalog.retention.removal import remove_buried
from cbmir_node.catalog.retention.tombstones import bury_objects
from cbmir_node.catalog.statistics import count_not_kept, count_pending, count_states
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.requests import request_again
from cbmir_node.catalog.work.series_cap import SKIPPED, drop_displaced, skip_surplus, stand_in
from tests.catalog.test_catalog import record, store

CT, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
DX, MG = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


@pytest.fixture
def model(catalog: Catalog) -> InstalledModel:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
    return registry.active()


def image(number: int | None, series: str = "1.2.1", **attributes: object) -> InstanceRecord:
    uids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": series, "PatientID": "P"}
    name = {} if number is None else {"SOPInstanceUID": f"{series}.{number}"}
    return record(**uids, **name, InstanceNumber=number, **attributes)


def embed(catalog: Catalog, model: InstalledModel, most: int) -> int:
    """Do what a worker does until nothing waits; return how many images it embedded."""
    queue, done = WorkQueue(catalog, "t/1", 60), 0
    frame = FrameVectors(1, {"embedding": np.ones(2, np.float32)})
    while claims := queue.claim(model.row, 7):
        wanted = skip_surplus(catalog, claims, most)
        write_vectors(catalog, [(claim, [frame]) for claim in wanted])
        instances = [claim.instance for claim in wanted]
        drop_displaced(catalog, model.row, instances, most)
        done += len(wanted)
    return done


def embedded(catalog: Catalog) -> list[int]:
    """Return the Instance Numbers of images with a vector, which are those marked so."""
    columns, work = schema.instances.c, schema.work.c
    marked = select(columns.instance_number).join(schema.work, work.instance == columns.id)
    having = select(columns.instance_number).join(
        schema.vectors, schema.vectors.c.instance == columns.id
    )
    with catalog.read() as connection:
        found = connection.execute(marked.where(work.state == "embedded")).scalars().all()
        assert sorted(connection.execute(having).scalars()) == sorted(found)
    return sorted(int(number) for number in found)


@given(
    first=st.integers(-1000, 10**6),
    step=st.integers(1, 1000),
    images=st.integers(2, 400),
    most=st.integers(1, 70),
)
def test_the_first_ones_in_the_sampling_order_are_spread_evenly(
    first: int, step: int, images: int, most: int
) -> None:
    numbers = range(first, first + step * images, step)
    order = sorted(numbers, key=lambda n: sampling_order(str(n), f"1.{n}", representative=True))
    positions = [-1, *sorted(numbers.index(number) for number in order[:most]), images]
    assert np.diff(positions).max() <= max(1, 2 * images / most) + 1


def test_without_numbers_the_sample_is_random_and_localizers_come_last() -> None:
    places = [sampling_order("", f"1.2.{n}", representative=True) for n in range(1000)]
    chosen = np.argsort(places, kind="stable")[:100]
    assert np.histogram(chosen, 5, (0, 1000))[0].min() > 10
    assert sampling_order("1", "1.2", representative=False) > max(places)


@pytest.mark.parametrize(
    ("image_type", "sop_class", "stands"),
    [
        ("", CT, True),
        ("ORIGINAL\\PRIMARY\\AXIAL", CT, True),
        ("ORIGINAL\\PRIMARY\\LOCALIZER", CT, False),
        ("derived\\secondary\\reformatted", CT, False),
        ("DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MPR", CT, False),
        ("DERIVED\\SECONDARY\\SCREEN SAVE", CT, False),
        ("ORIGINAL\\PRIMARY\\M\\NONE", ENHANCED_MR, True),
        ("MIXED\\PRIMARY\\VOLUME\\NONE", ENHANCED_MR, True),
        ("DERIVED\\PRIMARY\\VOLUME\\MAXIMUM", ENHANCED_MR, False),
        ("ORIGINAL\\PRIMARY\\MIP_COR\\ND\\SUB", "1.2.840.10008.5.1.4.1.1.4", False),
        ("ORIGINAL\\PRIMARY", SC, False),
        ("", f"{SC}.4", False),
        ("DERIVED\\PRIMARY", "1.2.840.10008.5.1.4.1.1.1", True),  # how CR looks as a rule
        ("DERIVED\\PRIMARY\\STEREO\\LEFT", MG, True),
        ("DERIVED\\SECONDARY", DX, False),
        ("ORIGINAL\\PRIMARY", f"{MG}.1", False),  # for processing: raw
        ("DERIVED\\PRIMARY", "1.2.840.10008.5.1.4.1.1.12.1", False),
    ],
)
def test_what_may_stand_for_a_study(image_type: str, sop_class: str, stands: bool) -> None:
    assert is_representative(image_type, sop_class) is stands


def test_the_same_images_are_embedded_however_the_series_arrives(
    catalog: Catalog, model: InstalledModel
) -> None:
    orders: dict[str, Sequence[int]] = {
        "at once": range(1, 31),
        "in order": range(1, 31),
        "at random": random.Random(5).sample(range(1, 31), 30),
    }
    for series, (name, numbers) in enumerate(orders.items(), start=1):
        cost = 0
        for number in numbers:
            with catalog.write() as connection:
                register(connection, image(number, f"1.2.{series}"), "keep")
            if name != "at once":
                cost += embed(catalog, model, 4)
        cost += embed(catalog, model, 4)
        # 4 (1 + ln(30 / 4)) = 12
        assert cost == 4 if name == "at once" else cost <= 16
        assert embedded(catalog) == sorted([4, 8, 16, 24] * series)
    states = count_states(catalog, model.row)
    assert (states["embedded"], states["skipped"], states["pending"]) == (3 * 4, 3 * 26, 0)


def test_every_series_has_its_own_share_and_what_is_no_picture_takes_none(
    catalog: Catalog, model: InstalledModel
) -> None:
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    store(catalog, *(image(number, **scout) for number in (64, 128)))
    store(catalog, *(image(number) for number in (1, 2, 3)), image(9, "1.2.2", **scout))
    with catalog.write() as connection:  # reports without pixels
        columns = schema.instances.c
        change = schema.instances.update().where(columns.instance_number == "2")
        connection.execute(change.values(has_pixels=False, sampling_order=None))
    claims = WorkQueue(catalog, "t/1", 60).claim(model.row, 100)
    wanted = skip_surplus(catalog, claims, 2)
    assert {claim.sop_instance_uid for claim in wanted} == {
        *("1.2.1.1", "1.2.1.3"),
        "1.2.1.2",  # to be told that it has no pixels
        "1.2.2.9",
    }


def test_reindex_judges_anew(catalog: Catalog, model: InstalledModel) -> None:
    store(catalog, *(image(number) for number in range(1, 21)))
    embed(catalog, model, 10)
    assert embedded(catalog) == list(range(2, 21, 2))
    for most, expected in ((5, [4, 8, 12, 16, 20]), (20, list(range(1, 21)))):
        request_again(catalog, model.row, ["embedded", "skipped"])
        embed(catalog, model, most)
        assert embedded(catalog) == expected
    assert count_states(catalog, model.row)["skipped"] == 0


def test_a_skipped_image_is_represented_by_its_nearest_neighbour(
    catalog: Catalog, model: InstalledModel
) -> None:
    store(catalog, *(image(number) for number in range(1, 21)))
    rows = {number: row for row, number in enumerate_numbers(catalog)}
    assert stand_in(catalog, model.row, rows[7]) is None  # pending
    embed(catalog, model, 5)
    assert [stand_in(catalog, model.row, rows[number]) for number in (5, 7)] == [rows[4], rows[8]]
    assert stand_in(catalog, model.row, rows[1]) == rows[4]
    assert stand_in(catalog, model.row, rows[20]) is None  # speaks for itself
    with catalog.read() as connection:
        work = select(schema.work.c.reason).where(schema.work.c.instance == rows[7])
        assert connection.execute(work).scalar_one() == SKIPPED


def enumerate_numbers(catalog: Catalog) -> list[tuple[int, int]]:
    columns = schema.instances.c
    with catalog.read() as connection:
        found = connection.execute(select(columns.id, columns.instance_number)).all()
    return [(row, int(number)) for row, number in found]


def test_instances_without_a_file_are_never_claimed_and_hold_a_new_model_up(
    catalog: Catalog, model: InstalledModel
) -> None:
    """The new model could not answer for them: they would be found no longer."""
    store(catalog, image(1), image(2))
    embed(catalog, model, 8)
    evicted = schema.instances.c.instance_number == "1"
    with catalog.write() as connection:
        connection.execute(schema.instances.update().where(evicted).values(path=""))
    request_again(catalog, model.row, ["embedded"])
    assert count_states(catalog, model.row) | {"pending": 1, "embedded": 1} == count_states(
        catalog, model.row
    )
    registry = ModelRegistry(catalog)
    newer = registry.add("1" * 64, "newer", "1", {"embedding": 2})
    registry.use(newer)
    assert embed(catalog, model, 8) == embed(catalog, newer, 8) == 1
    assert count_pending(catalog, newer.row, 1e12) == 0
    assert count_not_kept(catalog, newer.row) == 1
    assert registry.switch_if_ready() is None
    with catalog.write() as connection:
        row = select(schema.instances.c.id).where(evicted)
        connection.execute(schema.vectors.delete().where(schema.vectors.c.instance.in_(row)))
    assert registry.switch_if_ready() is not None  # nothing is lost any more


@pytest.mark.parametrize("kept", [True, False])
def test_the_places_of_removed_images_go_to_the_next(
    catalog: Catalog, model: InstalledModel, *, kept: bool
) -> None:
    """One by one, as many as have gone, and none to an image that goes itself."""
    for number in range(1, 17):
        store(catalog, image(number))
    embed(catalog, model, 4)
    assert embedded(catalog) == [4, 8, 12, 16]
    if not kept:
        with catalog.write() as connection:
            connection.execute(schema.instances.update().values(path=""))
    going = [(f"1.2.1.{number}", "1.2") for number in (1, 2, 3, 4, 5, 6, 8)]
    bury_objects(catalog, going, "rejected", "test", note="1.9")
    while remove_buried(catalog, 1).instances:
        pass
    assert count_states(catalog, model.row)["pending"] == (2 if kept else 0)
    assert count_not_kept(catalog, model.row) == (0 if kept else 2)
    if kept:
        assert embed(catalog, model, 4) == 2
        found = embedded(catalog)
        request_again(catalog, model.row, ["embedded", "skipped"])
        embed(catalog, model, 4)
        assert embedded(catalog) == found
