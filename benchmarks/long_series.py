"""What a very long series costs the embedding queue: slices that arrive one by one, or all at once.

Nothing is decoded or embedded: the time is that of the catalogue.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom import Dataset

from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.models import ModelRegistry
from cbmir_node.catalog.reception.records import make_record
from cbmir_node.catalog.reception.registration import register
from cbmir_node.catalog.statistics import count_states
from cbmir_node.catalog.vectors.rows import FrameVectors, write_vectors
from cbmir_node.catalog.work.queue import WorkQueue
from cbmir_node.catalog.work.series_cap import drop_displaced, skip_surplus
from cbmir_node.config import EmbeddingSettings, WorkerSettings

_CAP = EmbeddingSettings().images_per_series
_CLAIM = WorkerSettings().claim


def receive(catalog: Catalog, first: int, last: int) -> None:
    """Enter slices of one series."""
    with catalog.write() as connection:
        for number in range(first, last):
            dataset = Dataset()
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
            dataset.SOPInstanceUID, dataset.InstanceNumber = f"1.2.3.{number}", number
            record = make_record(
                dataset,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                has_pixels=True,
                path=f"{number}",
                size_bytes=1,
                content_sha256="",
                source="benchmark",
                received_at=time.time(),
            )
            register(connection, record, "keep")


def embed(catalog: Catalog, model: int, frame: FrameVectors) -> int:
    """Do what a worker does, but for the pixels; return how many slices it would embed."""
    queue, done = WorkQueue(catalog, "benchmark/1", 60), 0
    while claims := queue.claim(model, _CLAIM):
        wanted = skip_surplus(catalog, claims, _CAP)
        if wanted:
            write_vectors(catalog, [(claim, [frame]) for claim in wanted])
            drop_displaced(catalog, model, [claim.instance for claim in wanted], _CAP)
        done += len(wanted)
    return done


def main() -> None:
    """Print a table: per thousand slices, the time of the queue and what was embedded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=10_000)
    parser.add_argument("--at-a-time", type=int, default=1, help="slices between two looks")
    arguments = parser.parse_args()
    frame = FrameVectors(1, {"embedding": np.ones(256, np.float32)})
    with tempfile.TemporaryDirectory() as folder:
        catalog = open_catalog(f"sqlite:///{Path(folder) / 'catalog.sqlite'}", create=True)
        registry = ModelRegistry(catalog)
        registry.use(registry.add("0" * 64, "none", "1", {"embedding": 256}))
        model = registry.active().row
        embedded, spent, step = 0, 0.0, max(1, arguments.slices // 10)
        for first in range(1, arguments.slices + 1, arguments.at_a_time):
            last = min(first + arguments.at_a_time, arguments.slices + 1)
            receive(catalog, first, last)
            begin = time.perf_counter()
            embedded += embed(catalog, model, frame)
            spent += time.perf_counter() - begin
            if (last - 1) % step == 0 or last > arguments.slices:
                bound = _CAP * (1 + math.log(max(1, (last - 1) / _CAP)))
                print(f"{last - 1:7d} slices  {spent:7.1f} s  {embedded:5d} embedded ({bound:.0f})")
        print(count_states(catalog, model))
        catalog.close()


if __name__ == "__main__":
    main()
