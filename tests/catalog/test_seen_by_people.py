"""What a page shows of the catalogue: images, subjects, failures; on SQLite and on PostgreSQL."""

from __future__ import annotations

import time

from cbmir_node.catalog.database import Catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.query.images import describe_images, images_of_series, stored_modalities
from cbmir_node.catalog.query.subjects import subject_state
from cbmir_node.catalog.statistics import count_states, failures_by_reason, oldest_pending
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.requests import request_failed_again
from tests.catalog.test_catalog import record, store


def test_a_series_and_its_images_in_order(catalog: Catalog) -> None:
    numbers = ["10", "9", None]
    series = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    records = [
        record(SOPInstanceUID=f"1.1.1.{place}", InstanceNumber=number, **series)
        for place, number in enumerate(numbers)
    ]
    store(catalog, *records)
    found = images_of_series(catalog, "1.1.1", 10)
    assert [image.sop_instance_uid[-1] for image in found] == ["1", "0", "2"]
    assert [image.number_of_frames for image in found] == [1, 1, 1]
    assert len(images_of_series(catalog, "1.1.1", 2)) == 2
    described = describe_images(catalog, ["1.1.1.0", "1.1.1.2", "1.1.1.2", "9.9"])
    assert set(described) == {"1.1.1.0", "1.1.1.2"}
    assert described["1.1.1.0"].images_in_series == 3
    assert described["1.1.1.0"].study_instance_uid == "1.1"
    assert stored_modalities(catalog) == ["CT"]


def test_failures_by_reason_and_what_becomes_of_them(catalog: Catalog) -> None:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
    model = registry.active().row
    begin = time.time()
    study = {"StudyInstanceUID": "1.2"}
    store(catalog, *(record(SOPInstanceUID=f"1.2.{place}", **study) for place in range(3)))
    assert subject_state(catalog, model, "STUDY", "9.9") is None
    waiting = subject_state(catalog, model, "STUDY", "1.2")
    assert waiting is not None
    assert (waiting.instances, waiting.embedded, waiting.state) == (3, 0, "pending")
    oldest = oldest_pending(catalog, model)
    assert oldest is not None
    assert begin <= oldest <= time.time()
    queue = WorkQueue(catalog, "test/1", 60)
    for claim, reason in zip(queue.claim(model, 3), ("torn", "torn", "odd"), strict=True):
        queue.finish(claim, "failed", reason, 2)
    assert oldest_pending(catalog, model) is None
    groups = failures_by_reason(catalog, model)
    assert [(group.reason, group.instances, group.can_be_retried) for group in groups] == [
        ("torn", 2, True),
        ("odd", 1, True),
    ]
    assert {group.study_instance_uid for group in groups} == {"1.2"}
    failed = subject_state(catalog, model, "IMAGE", groups[1].sop_instance_uid)
    assert failed is not None
    assert (failed.embedded, failed.state, failed.reason) == (0, "failed", "odd")
    assert request_failed_again(catalog, "none of them") == 0
    assert request_failed_again(catalog, "torn") == 2
    assert count_states(catalog, model)["pending"] == 2
    assert request_failed_again(catalog) == 1


def test_the_state_of_what_has_no_vector_of_its_own(catalog: Catalog) -> None:
    registry = ModelRegistry(catalog)
    registry.use(registry.add("0" * 64, "tiny", "1", {"embedding": 2}))
    model = registry.active().row
    study = {"StudyInstanceUID": "1.3"}
    store(catalog, *(record(SOPInstanceUID=f"1.3.{place}", **study) for place in range(2)))
    queue = WorkQueue(catalog, "test/1", 60)
    first, second = queue.claim(model, 2)
    queue.finish(first, "skipped", "", 1)
    queue.finish(second, "no_pixels", "", 1)
    told = [subject_state(catalog, model, "IMAGE", f"1.3.{place}") for place in range(2)]
    assert [one and (one.state, one.embedded, one.images) for one in told] == [
        ("skipped", 1, 1),
        ("no_pixels", 0, 1),
    ]
    whole = subject_state(catalog, model, "STUDY", "1.3")
    assert whole is not None
    assert (whole.state, whole.embedded, whole.images) == ("skipped", 0, 2)
