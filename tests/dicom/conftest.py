"""A node's DICOM port on a free port of loopback, with a scripted search behind it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from cbmir_node.archive.store import Archive
from cbmir_node.catalog.database import Catalog, open_catalog
from cbmir_node.catalog.keys import KEY_BY_KEYWORD, UNIQUE_KEY, Level
from cbmir_node.catalog.query.hierarchy import Match, find
from cbmir_node.config import Settings
from cbmir_node.dicom.server import DicomServer
from cbmir_node.errors import UnknownExampleError
from cbmir_node.intake import Intake
from cbmir_node.search.query import Choices, SimilarityAnswer, SimilarityQuery, SimilarMatch
from tests.objects import write


@dataclass
class ScriptedSearch:
    """Answers with everything but the examples, newest first, and remembers what it was asked."""

    catalog: Catalog
    queries: list[SimilarityQuery] = field(default_factory=list)
    error: Exception | None = None
    label: str = "CT_HEAD"

    def answer(self, query: SimilarityQuery) -> SimilarityAnswer:
        self.queries.append(query)
        if self.error is not None:
            raise self.error
        key = UNIQUE_KEY[query.level]
        known = find(self.catalog, query.level, {}, [key], 10000)
        examples = {example.uid for example in query.examples}
        if not examples <= {match.values[key] for match in known}:
            raise UnknownExampleError("the node has no such study")
        others = [match for match in known if match.values[key] not in examples]
        matches = [
            self._match(rank, match, key)
            for rank, match in enumerate(others[: query.k or 20], start=1)
        ]
        choices = Choices(
            k=query.k or 20,
            method=query.method or "cosine",
            rerank=bool(query.rerank),
            space=query.space or "embedding",
            by_class=bool(query.by_class),
            predicted_class=query.predicted_class,
            trusted_probability=0.9,
            same_tags=tuple(query.same_tags or ()),
            same_age_years=10,
            exclude_same_patient=True,
        )
        return SimilarityAnswer(query.level, "tiny:1", matches, choices)

    def newest_study(self, filters: Mapping[str, str]) -> str | None:
        found = find(self.catalog, "STUDY", filters, ["StudyInstanceUID"], 1)
        return found[0].values["StudyInstanceUID"] if found else None

    def _match(self, rank: int, match: Match, key: str) -> SimilarMatch:
        keys = {key: match.values[key]}
        image = find(self.catalog, "IMAGE", keys, ["SOPInstanceUID"], 1)[0]
        uid = image.values["SOPInstanceUID"]
        similarity = 1 - rank / 100
        return SimilarMatch(rank, match.row, similarity, similarity, uid, 1, self.label, 0.75)


@dataclass
class Node:
    """What a test can look at."""

    server: DicomServer
    archive: Archive
    catalog: Catalog
    intake: Intake
    search: ScriptedSearch
    folder: Path

    @property
    def port(self) -> int:
        return self.server.port

    def temporary_files(self) -> list[Path]:
        return list((self.archive.root / "incoming").iterdir())

    def stored(self, level: Level = "IMAGE") -> list[dict[str, str]]:
        return [
            match.values for match in find(self.catalog, level, {}, list(KEY_BY_KEYWORD), 10000)
        ]

    def keep(self, *datasets: Dataset) -> None:
        """Put objects into the node without the network."""
        for number, dataset in enumerate(datasets):
            self.intake.accept_file(write(dataset, self.folder / f"kept{number}.dcm"))


@pytest.fixture
def start_node(tmp_path: Path, sqlite_template: Path) -> Iterator[Callable[..., Node]]:
    """Return a function that starts a node.

    Keyword arguments are those of `DicomSettings`; ``sections`` holds other sections of `Settings`.
    """
    nodes: list[Node] = []

    def start(sections: dict[str, Any] | None = None, **dicom: Any) -> Node:
        file = tmp_path / "catalog.sqlite"
        shutil.copy(sqlite_template, file)
        catalog = open_catalog(f"sqlite:///{file}")
        archive = Archive(tmp_path / "archive")
        intake = Intake(archive, catalog)
        search = ScriptedSearch(catalog)
        settings = Settings.model_validate({**(sections or {}), "dicom": {"port": 0, **dicom}})
        server = DicomServer(settings, intake, catalog, search)
        server.start()
        nodes.append(Node(server, archive, catalog, intake, search, tmp_path))
        return nodes[-1]

    yield start
    for node in nodes:
        node.server.stop()
        assert node.server.active_associations() == 0
        node.intake.close()
        node.catalog.close()


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    """Start a node with default settings."""
    return start_node()
