"""docs/orthanc.md, followed word for word: a real Orthanc, a real node, real DCMTK.

The page is done once, in one shell session. What it said and what it left is then looked at.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from cbmir_node.config import load_settings
from tests.conftest import REPOSITORY, free_port, needs_program
from tests.end_to_end.conftest import EMBED_TIMEOUT_S, metric
from tests.end_to_end.peers import Orthanc, find_similar, study_uids
from tests.end_to_end.test_command_line import KINDS
from tests.end_to_end.test_command_line import study as study_of_kind
from tests.end_to_end.walk import Block, Terminal, blocks
from tests.objects import write

PAGE = (REPOSITORY / "docs" / "orthanc.md").read_text(encoding="utf-8")
CONFIGURATION = REPOSITORY / "conf" / "orthanc"
STUDIES_PER_KIND = 4
OBJECTS = len(KINDS) * STUDIES_PER_KIND
EXAMPLE = study_of_kind("disc", 1)
PORTS = ("11112", "11113", "8080", "4242", "8042")
"""Those of the page; free ones take their place."""
FOR_THE_READER_TO_FILL_IN = {
    "/path/to/dicom": "../images",
    "1.2.840.113619.2.30.1": EXAMPLE.StudyInstanceUID,
}


@dataclass
class Walk:
    """The page, done.

    Attributes
    ----------
    folder : Path
        Where it was done.
    ports : dict of str to str
        The page's port to the one used.
    said : list of (str, str)
        What each block of commands said, with the heading above it.
    """

    folder: Path
    ports: dict[str, str]
    said: list[tuple[str, str]] = field(default_factory=list)

    @property
    def node_port(self) -> int:
        return int(self.ports["11112"])

    @property
    def orthanc(self) -> Orthanc:
        return Orthanc(int(self.ports["8042"]))

    @property
    def answer(self) -> str:
        """The most similar study's UID."""
        (said,) = self.heard("Ask for similar studies")
        return str(json.loads(said)[0]["StudyInstanceUID"])

    @property
    def original(self) -> Dataset:
        """The image of the most similar study, as it was sent."""
        (found,) = (
            image
            for image in map(dcmread, (self.folder.parent / "images").iterdir())
            if image.StudyInstanceUID == self.answer
        )
        return found

    def filled_in(self, text: str) -> str:
        """Put free ports, a folder and an example into text of the page."""
        for written, meant in {**self.ports, **FOR_THE_READER_TO_FILL_IN}.items():
            text = re.sub(rf"(?<![\w.]){re.escape(written)}(?![\w.])", meant, text)
        return text

    def heard(self, section: str) -> list[str]:
        """Return what the blocks of a section said."""
        return [said for heading, said in self.said if section in heading]

    def wait_before(self, step: Block) -> None:
        """Wait for what the page says takes a moment."""
        if "cbmir-node status" not in step.text:
            return
        deadline = time.monotonic() + EMBED_TIMEOUT_S
        while not (self.is_emptied() if "no pixels" in step.section else self.is_embedded()):
            assert time.monotonic() < deadline, f"waited in vain before:\n{step.text}"
            time.sleep(0.1)

    def is_embedded(self) -> bool:
        http_port = int(self.ports["8080"])
        return metric(http_port, 'cbmir_embedding_state{kind="embedded"}') == OBJECTS

    def is_emptied(self) -> bool:
        return not list((self.folder / "cbmir-data" / "archive").rglob("*.dcm"))


def picture_study(kind: str, number: int) -> Dataset:
    return study_of_kind(kind, number, AccessionNumber=f"{kind.upper()}{number}")


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Follow the page to its end; stop what it started after the tests."""
    needs_program("Orthanc", package="orthanc")
    needs_program("dcmsend", "getscu", package="dcmtk")
    needs_program("curl", package="curl")
    checkout = tmp_path_factory.mktemp("orthanc")
    walk = Walk(checkout / "walk", {port: str(free_port()) for port in PORTS})
    (checkout / "conf" / "orthanc").mkdir(parents=True)
    for file in CONFIGURATION.iterdir():
        copy = checkout / "conf" / "orthanc" / file.name
        copy.write_text(walk.filled_in(file.read_text()))
    (checkout / "images").mkdir()
    for kind in KINDS:
        for number in range(1, STUDIES_PER_KIND + 1):
            write(picture_study(kind, number), checkout / "images" / f"{kind}{number}.dcm")
    terminal = Terminal(checkout, programs=Path(sys.executable).parent)
    try:
        *steps, stop = [block for block in blocks(PAGE) if block.language == "sh"]
        try:
            for step in steps:
                walk.wait_before(step)
                walk.said.append((step.section, terminal.run(walk.filled_in(step.text))))
        except AssertionError as error:
            error.add_note((walk.folder / "node.log").read_text())
            raise
        yield walk
        terminal.run(stop.text)
    finally:
        terminal.close()


def test_the_page_shows_the_shipped_files() -> None:
    shown = {block.file_name: block.text for block in blocks(PAGE) if block.file_name}
    assert shown == {file.name: file.read_text() for file in CONFIGURATION.iterdir()}
    load_settings(CONFIGURATION / "cbmir-node.toml", environment={})


def test_both_start_and_reach_each_other(walk: Walk) -> None:
    checked, answered = walk.heard("Start both")
    assert checked.startswith("ok")
    assert '"status":"ready"' in answered
    assert "ORTHANC@localhost:" in answered


def test_orthanc_routes_every_study_to_the_node(walk: Walk) -> None:
    status = walk.heard("Send images")[-1]
    counts = dict(line.split() for line in status.strip().splitlines())
    assert counts["received"] == counts["embedded"] == counts["studies"] == str(OBJECTS)


def test_orthanc_shows_the_similar_studies_best_first(walk: Walk) -> None:
    (said,) = walk.heard("Ask for similar studies")
    answers = json.loads(said)
    assert [answer["PatientID"][:-1] for answer in answers[:3]] == ["disc"] * 3
    assert len(answers) == OBJECTS - 1
    assert EXAMPLE.StudyInstanceUID not in {answer["StudyInstanceUID"] for answer in answers}
    ranks = [re.match(r"#(\d+) [01]\.\d\d ", answer["StudyDescription"]) for answer in answers]
    assert [int(rank[1]) for rank in ranks if rank] == list(range(1, OBJECTS))


@pytest.mark.parametrize("kind", KINDS)
def test_orthanc_explorer_asks_by_accession_number(walk: Walk, kind: str) -> None:
    """Its form asks with these keys, and has none for the Study Instance UID."""
    keys = ("PatientBirthDate", "PatientID", "PatientName", "PatientSex", "StudyDescription")
    form = dict.fromkeys(keys, "") | {"AccessionNumber": f"{kind.upper()}1", "StudyDate": ""}
    query = walk.orthanc.post("/modalities/similar/query", {"Level": "Study", "Query": form})
    answers = walk.orthanc.answers(query["ID"])
    assert [answer["PatientID"][:-1] for answer in answers[:3]] == [kind] * 3
    assert len(answers) == OBJECTS - 1


def test_remote_query_gives_the_order_of_findscu(walk: Walk, tmp_path: Path) -> None:
    (said,) = walk.heard("Ask for similar studies")
    key = f"StudyInstanceUID={EXAMPLE.StudyInstanceUID}"
    asked = find_similar(walk.node_port, tmp_path, key)
    assert [answer["StudyInstanceUID"] for answer in json.loads(said)] == study_uids(asked)


def test_an_answer_is_opened(walk: Walk) -> None:
    """Orthanc repeats an answer's UIDs, level by level."""
    query = json.loads(walk.heard("Open an answer")[0])["ID"]
    (series,) = walk.orthanc.answers(query)
    assert (series["StudyInstanceUID"], series["Modality"]) == (walk.answer, "CT")
    wanted = {"Query": {"SOPInstanceUID": ""}}
    opened = walk.orthanc.post(f"/queries/{query}/answers/0/query-instances", wanted)
    (image,) = walk.orthanc.answers(opened["ID"])
    assert image["SOPInstanceUID"] == walk.original.SOPInstanceUID
    assert image["SeriesInstanceUID"] == series["SeriesInstanceUID"]


def test_orthanc_gets_an_answer_back_from_the_node(walk: Walk) -> None:
    said = walk.heard("Open an answer")[1]
    assert "RemainingAncestor" in said  # of the deletion
    assert said.rindex('"Type" : "Study"') > said.index('"RemoteAet" : "CBMIR_SIM"')
    (returned,) = walk.orthanc.files_of(walk.answer)
    assert returned == walk.original
    assert "C-MOVE from ORTHANC: 0x0000, 1 sent" in (walk.folder / "node.log").read_text()


def test_pull_skips_what_the_node_has(walk: Walk) -> None:
    (said,) = walk.heard("What Orthanc had before")
    assert f"studies: {OBJECTS} seen, 0 fetched (0 images), {OBJECTS} were here" in said


def test_dcmtk_stores_asks_and_retrieves(walk: Walk) -> None:
    (said,) = walk.heard("Any other PACS")
    answers = re.findall(r"\(0010,0020\) LO \[(\w+) ?\]", said)
    assert [answer[:-1] for answer in answers[:3]] == ["disc"] * 3
    for folder in ("received", "fetched"):
        (file,) = (walk.folder / folder).iterdir()
        assert dcmread(file) == walk.original


def test_without_pixels_the_answers_lead_to_orthanc(walk: Walk) -> None:
    status, fetched, found = walk.heard("no pixels")[1:]
    counts = dict(re.findall(r"^(\w+) +(\d+)$", status, re.M))
    assert counts["embedded"] == counts["not_kept"] == str(OBJECTS)
    assert re.findall(r"\(0008,0054\) AE \[(\w+) *\]", status) == ["ORTHANC"] * (OBJECTS - 1)
    (file,) = (walk.folder / "from-orthanc").iterdir()
    assert dcmread(file) == walk.original
    assert '"Type" : "Study"' in found
    assert "Abort" not in fetched
