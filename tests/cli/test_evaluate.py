"""``evaluate`` from the command line: tables, JSON, Markdown and the page, and what it refuses."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbmir_node.evaluation import feedback, saliency
from cbmir_node.evaluation.scores import METRICS
from cbmir_node.stores import Stores
from tests.cli.conftest import Command
from tests.models import build_model
from tests.objects import make_object
from tests.small_node import keep

LABELS = ("CLASS_0", "CLASS_1", "CLASS_2", "STRANGE")
PATIENTS = 5


class External(HTMLParser):
    """Collects what a browser would have to fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset") and not (value or "").startswith(("data:", "#")):
                self.found.append(f"{name}={value}")


def fetched(page: str) -> External:
    parser = External()
    parser.feed(page)
    parser.found += ["url(" for _ in range(page.count("url("))]
    parser.found += ["@import" for _ in range(page.count("@import"))]
    return parser


def make_manifest(folder: Path, **columns: str) -> Path:
    """Write pictures of four classes, two findings that do not show and two splits, and a list."""
    random = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(LABELS):
        for patient in range(2 * PATIENTS):
            finding = ("ill", "well")[patient % 2] if label == "CLASS_0" else ""
            for image in range(1 + (patient == 0)):
                pixels = random.integers(0, 90, (40, 30 + 4 * number))
                pixels[8 * number : 8 * number + 8] += 150
                name = f"{label}-{patient}-{image}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                rows.append(
                    {
                        "file": name,
                        "label": label,
                        "finding": finding,
                        "patient_id": f"{label} {patient}",
                        "split": "train" if patient < PATIENTS else "test",
                    }
                    | columns
                )
    return write_rows(folder / "manifest.csv", rows)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_manifest_is_measured(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saliency, "PICTURES", 8)
    monkeypatch.setattr(feedback, "MARKED", 1)  # of six images with a finding
    manifest, output = make_manifest(tmp_path), tmp_path / "out"
    model = build_model(tmp_path / "tiny.onnx", classes=3, layers={"fc1": 16})
    plain = build_model(
        tmp_path / "plain.onnx", name="plain", classes=0, bits=0, saliency=False, seed=1
    )
    arguments = ("evaluate", manifest, "--model", model, "--baseline", plain, "-o", output)
    done = command(*arguments, "--windows")
    assert done.exit_code == 0, done.output
    assert "tiny: hamming, 16 bits" in done.stdout
    found = json.loads((output / "evaluation.json").read_text())
    assert found["version"] == 1
    assert found["judged"] == ["CLASS_0"]
    assert found["reference"] == "plain: cosine"
    names = [system["name"] for system in found["systems"]]
    assert names[:3] == [
        "pixels 24 × 24: cosine",
        "plain: cosine",
        "plain: cosine, queries at 64 px",
    ]
    assert "plain + linear discriminant: cosine" in names
    assert "tiny: embedding.fc1, euclidean" in names
    assert "tiny: cosine, same tags" in names
    tables = found["systems"][-1]["tables"]
    assert {"U/coarse/image", "U/finding/study", "P/coarse/image"} <= set(tables)
    table = next(s for s in found["systems"] if s["name"] == "tiny: euclidean")["tables"][
        "U/coarse/image"
    ]
    assert set(table["metrics"]) == set(METRICS) == set(table["difference_to_plain"])
    for figure in table["metrics"].values():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert table["queries"] == 20
    assert set(table["classes"]) == set(LABELS)
    assert len(table["precision"]) == 101
    accuracy = next(c for c in found["classification"] if c["model"] == "tiny")
    assert accuracy["images"] == 15  # the model does not know the fourth class
    unseen = found["unseen"][0]
    assert (unseen["labels"], len(unseen["probability_unseen"])) == (["STRANGE"], 5)
    assert "plain" in unseen["gain_against_all"]
    assert [curve["mask"] for curve in found["saliency"][0]["curves"]] == list(saliency.MASKS)
    assert found["saliency"][0]["pictures"] == 8
    assert len(found["windows"]) == 8
    assert found["radius"][0]["recall"][-1] == 1
    marked = {row["name"]: row["rounds"] for row in found["feedback"]}
    assert [one["marked"] for one in marked["tiny: hamming, 16 bits"][:2]] == [0, 1]
    page = fetched((output / "report.html").read_text())
    assert not page.found
    assert page.images > 6 + 10  # plots, and queries with what they found instead
    assert "| tiny: cosine |" in (output / "evaluation.md").read_text()
    # the second run embeds nothing, and says the same
    model_run = pytest.MonkeyPatch()
    with model_run.context() as patch:
        patch.setattr("cbmir_node.evaluation.sources.embed_files", None)
        again = command(*arguments, "--no-saliency", "--reference", "tiny: cosine")
    assert again.exit_code == 0, again.output
    second = json.loads((output / "evaluation.json").read_text())
    assert second["reference"] == "tiny: cosine"
    assert second["saliency"] == []
    for before, after in zip(found["systems"], second["systems"], strict=True):
        assert (
            before["tables"]["U/coarse/image"]["metrics"]
            == (after["tables"]["U/coarse/image"]["metrics"])
        )


def test_labels_and_patients_are_enough(command: Command, tmp_path: Path) -> None:
    whole = make_manifest(tmp_path)
    with whole.open(newline="") as handle:
        rows = [
            {name: row[name] for name in ("file", "label", "patient_id")}
            for row in csv.DictReader(handle)
        ]
    manifest = write_rows(tmp_path / "few.csv", rows)
    model = build_model(tmp_path / "tiny.onnx", classes=0, bits=0, saliency=False)
    done = command("evaluate", manifest, "--model", model, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["data"]["queries"] == len(rows)
    assert found["data"]["database"] == {"U": len(rows)}
    assert found["classification"] == found["unseen"] == found["radius"] == []


def test_an_archive_is_measured_by_its_tags(
    stores: Stores, command: Command, tmp_path: Path
) -> None:
    parts = ["HEAD", "HEAD", "HEAD", "CHEST", "CHEST", "KNEE", None]
    objects = [
        make_object(BodyPartExamined=part, size=16 + 2 * number)
        for number, part in enumerate(parts)
    ]
    localizer = make_object(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    keep(stores, tmp_path, *objects, localizer)
    assert command("reindex").exit_code == 0
    done = command("evaluate", "--archive", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "1 without BodyPartExamined" in done.stdout
    assert "1 localizers, derived images and secondary captures" in done.stdout
    assert "1 queries without any image of their class elsewhere" in done.stdout
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["data"]["classes"]["CT_HEAD"] == {"images": 3, "patients": 3}
    assert list(found["data"]["classes"]) == ["CT_CHEST", "CT_HEAD", "CT_KNEE"]
    assert found["systems"][0]["name"] == "tiny: cosine"
    assert found["systems"][0]["tables"]["U/coarse/image"]["queries"] == 5
    assert set(found["systems"][0]["tables"]) == {"U/coarse/image", "U/coarse/study"}
    page = fetched((tmp_path / "out" / "report.html").read_text())
    assert not page.found
    assert page.images >= 2  # plots, and pictures from the archive, decoded again
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("", 2, "either a MANIFEST or --archive"),
        ("--archive --ignore-findings CT", 2, "takes no --model"),
        ("--archive", 1, "there is no catalogue"),
    ],
)
def test_wrong_usage(
    command: Command, tmp_path: Path, arguments: str, code: int, message: str
) -> None:
    done = command("evaluate", *arguments.split(), "-o", tmp_path / "out")
    assert (done.exit_code, message in done.stderr) == (code, True), done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na.png,A\n", "lacks the column(s) patient_id"),
        ("file,label,patient_id\n", "no rows"),
        ("file,label,patient_id\na.png,,1\n", "line 2: column label is empty"),
        ("file,label,patient_id\nabsent.png,A,1\n", "absent.png"),
        ("file,label,patient_id,split\na.png,A,1,Test\n", "split is 'Test'"),
        ("file,label,patient_id,split\na.png,A,1,val\na.png,A,1,test\n", "patient 1 is in two"),
        ("file,label,patient_id,split\na.png,A,1,val\n", "no image is of split test"),
        ("file,label,patient_id\na.png,A,1\na.png,B,2\n", "another patient"),
        ("file,label,patient_id\nmanifest.csv,A,1\n", "cannot read the picture"),
        (b"\xff\xfe\x00", "no CSV file in UTF-8"),
    ],
)
def test_unusable_manifests_are_explained(
    command: Command, tmp_path: Path, content: str | bytes, message: str
) -> None:
    Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(tmp_path / "a.png")
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(content.encode() if isinstance(content, str) else content)
    model = build_model(tmp_path / "tiny.onnx")
    done = command("evaluate", manifest, "--model", model, "-o", tmp_path / "out")
    assert (done.exit_code, message in done.stderr) == (1, True), done.output


def test_unknown_names_are_answered_with_the_known_ones(command: Command, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    model = build_model(tmp_path / "tiny.onnx", bits=0, saliency=False)
    arguments = ("evaluate", manifest, "--model", model, "-o", tmp_path / "out")
    wrong = command(*arguments, "--reference", "imagenet")
    assert wrong.exit_code == 1
    assert "there is no system 'imagenet'" in wrong.stderr
    assert "pixels 24 × 24: cosine" in wrong.stderr
    twice = command(*arguments, "--model", model)
    assert (twice.exit_code, "given twice" in twice.stderr) == (1, True)
    finding = command(*arguments, "--ignore-findings", "CLASS_9")
    assert (finding.exit_code, "CLASS_9" in finding.stderr) == (1, True)
