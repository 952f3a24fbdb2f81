"""A data folder, and a pull into it that does not wait long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import select

from cbmir_node.backfill.dimse import DimsePacs
from cbmir_node.backfill.pace import Pace
from cbmir_node.backfill.pacs import ListedStudy
from cbmir_node.backfill.patience import PatientPacs
from cbmir_node.backfill.plans import MissingImages, MissingPixels
from cbmir_node.backfill.pull import Progress, Pull
from cbmir_node.backfill.walk import Selection, StudyWalk
from cbmir_node.catalog import schema
from cbmir_node.catalog.pulls import studies_without_pixels
from cbmir_node.config import Settings
from cbmir_node.node import open_intake
from cbmir_node.stores import Stores
from tests.backfill.scripted_pacs import ScriptedPacs
from tests.small_node import open_small_stores

Puller = Callable[..., Progress]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open a data folder with a tiny network in use."""
    opened = open_small_stores(Settings(data_dir=tmp_path / "data"))
    yield opened
    opened.close()


@pytest.fixture
def puller(stores: Stores) -> Iterator[Puller]:
    """Pull from a scripted PACS by C-GET or C-MOVE."""
    intake = open_intake(stores)

    def pull(
        scripted: ScriptedPacs,
        *,
        by: str = "get",
        again: bool = False,
        evicted: bool = False,
        keeps_files: bool = False,
        timeout: float = 10,
    ) -> Progress:
        pace = Pace()
        pacs = PatientPacs(
            DimsePacs(scripted.peer, intake, by=by, ae_title="CBMIR", timeout=timeout),
            pace,
            pauses_s=(0.1,),
        )
        if evicted:
            planner = MissingPixels(stores.catalog)
            studies = map(ListedStudy, studies_without_pixels(stores.catalog))
        else:
            planner = MissingImages(pacs, stores.catalog, again=again, keeps_files=keeps_files)
            studies = StudyWalk(pacs, Selection("20230101-20240331"), date(2024, 3, 31))
        run = Pull(pacs, planner, stores.archive, pace, pause_s=0.05)
        run.run(studies)
        return run.progress

    yield pull
    intake.close()


def stored_uids(stores: Stores) -> list[str]:
    """Return the SOP Instance UIDs of all instances with pixels."""
    instances = schema.instances.c
    with stores.catalog.read() as connection:
        query = select(instances.sop_instance_uid).where(instances.path != "")
        return sorted(connection.execute(query).scalars())
