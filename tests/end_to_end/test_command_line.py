"""The commands, used as the README says, on a running and on a stopped node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from tests.conftest import needs_program
from tests.end_to_end.conftest import RunningNode, run_cli
from tests.models import build_model
from tests.objects import make_object, write

SIZE = 96
KINDS = {"disc": 1, "stripes": 2, "dots": 3}


def picture(kind: str, number: int) -> bytes:
    """Return 16-bit pixels of one of three kinds of picture, each a little different."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    shift = random.uniform(-0.05, 0.05)
    pattern = {
        "disc": np.hypot(x - 0.5 - shift, y - 0.5) < 0.3,
        "stripes": np.sin((x + shift) * 40) > 0,
        "dots": np.hypot((x + shift) * 12 % 1 - 0.5, y * 12 % 1 - 0.5) < 0.25,
    }[kind]
    noisy = pattern * 800.0 + random.normal(0, 20, (SIZE, SIZE))
    return bytes(noisy.astype(np.int16).tobytes())


def study(kind: str, number: int, **attributes: object) -> Dataset:
    return make_object(
        size=SIZE,
        PatientID=f"{kind}{number}",
        StudyInstanceUID=f"1.2.{KINDS[kind]}.{number}",
        PixelData=picture(kind, number),
        WindowCenter=400,
        WindowWidth=1000,
        StudyDescription=kind,
        PatientAge=f"{30 + number:03d}Y",
        **attributes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as users have them: DICOM in subfolders, and other things."""
    root = tmp_path_factory.mktemp("dicom")
    for kind in KINDS:
        (root / kind).mkdir()
        for number in range(1, 7):
            write(study(kind, number), root / kind / f"{number}.dcm")
    no_pixels = make_object(PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    write(no_pixels, root / "report.dcm")
    (root / "notes.txt").write_text("not DICOM")
    (root / ".hidden").write_bytes((root / "disc" / "1.dcm").read_bytes())
    whole = (root / "disc" / "1.dcm").read_bytes()
    (root / "cut.dcm").write_bytes(whole[:-1000])
    return root


@pytest.fixture(scope="module")
def data_dir(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder that was filled without a running node."""
    root = tmp_path_factory.mktemp("data") / "data"
    done = run_cli(root, "import", "--json", str(folder))
    assert done.returncode == 1, done.stderr  # one file is cut
    counts = json.loads(done.stdout)
    assert (counts["stored"], counts["skipped"], counts["refused"]) == (19, 1, 1)
    assert "truncated" in counts["refusals"][0]["reason"]
    assert counts["skips"] == [{"file": str(folder / "notes.txt"), "reason": "not a DICOM file"}]
    again = json.loads(run_cli(root, "import", "--json", str(folder / "disc")).stdout)
    assert (again["stored"], again["duplicate"]) == (0, 6)
    indexed = run_cli(root, "reindex")
    assert indexed.returncode == 0, indexed.stderr
    return root


@pytest.fixture
def node(data_dir: Path, start_node: Callable[..., RunningNode], tmp_path: Path) -> RunningNode:
    """Run a node on a copy of the filled data folder."""
    shutil.copytree(data_dir, tmp_path / "data")
    return start_node(tmp_path / "data")


def studies(output: str) -> list[str]:
    return [result["StudyInstanceUID"] for result in json.loads(output)["results"]]


def test_status_of_a_stopped_node(data_dir: Path) -> None:
    done = run_cli(data_dir, "status", "--json", "--failures")
    found = json.loads(done.stdout)
    expected = {"received": 19, "pending": 0, "embedded": 18, "failed": 0, "no_pixels": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["running"] is False
    assert found["failures"][0]["state"] == "no_pixels"
    assert "embedded" in run_cli(data_dir, "status").stdout


def test_query_by_study_series_instance_and_file(data_dir: Path, folder: Path) -> None:
    by_study = run_cli(data_dir, "query", "--study", "1.2.1.1", "-k", "5", "--json")
    assert by_study.returncode == 0, by_study.stderr
    answer = json.loads(by_study.stdout)
    assert {uid.rsplit(".", 1)[0] for uid in studies(by_study.stdout)} == {"1.2.1"}
    similarities = [result["similarity"] for result in answer["results"]]
    assert similarities == sorted(similarities, reverse=True)
    assert all(0 <= similarity <= 1 for similarity in similarities)
    by_file = run_cli(
        data_dir, "query", "--file", str(folder / "disc" / "1.dcm"), "-k", "6", "--json"
    )
    # the node has the file's own study: it is left out, as of any example
    assert studies(by_file.stdout)[:5] == studies(by_study.stdout)
    assert "1.2.1.1" not in studies(by_file.stdout)
    lower = run_cli(data_dir, "query", "--study", "1.2.1.1", "--modality", "ct", "--json")
    assert len(studies(lower.stdout)) == 17
    part = run_cli(data_dir, "query", "--study", "1.2.1.1", "--body-part", "he*", "--json")
    assert studies(part.stdout) == studies(lower.stdout)
    narrow = run_cli(data_dir, "query", "--study", "1.2.1.1", "--age", "33-34", "--json")
    assert set(studies(narrow.stdout)) >= {"1.2.1.3", "1.2.1.4"}
    assert len(studies(narrow.stdout)) == 6
    images = run_cli(data_dir, "query", "--study", "1.2.1.1", "--level", "image", "--json")
    assert "SOPInstanceUID" in json.loads(images.stdout)["results"][0]
    table = run_cli(data_dir, "query", "--study", "1.2.1.1", "--method", "euclidean").stdout
    assert table.splitlines()[0].startswith("#")


def test_embed_writes_what_the_contract_says(data_dir: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npz"
    done = run_cli(data_dir, "embed", str(folder), "-o", str(output))
    assert done.returncode == 0, done.stderr
    arrays = np.load(output)
    assert arrays["embedding"].dtype == np.float32
    assert arrays["embedding"].shape[0] == 18
    assert arrays["sop_instance_uid"].shape == (18,)
    assert arrays["code"].dtype == np.uint8
    assert set(arrays) >= {"frame_number", "label", "probability"}
    assert "skipped" in done.stderr
    nothing = run_cli(data_dir, "embed", str(folder / "notes.txt"), "-o", str(tmp_path / "x.npz"))
    assert nothing.returncode == 1
    assert not (tmp_path / "x.npz").exists()


def test_verify_and_doctor(data_dir: Path) -> None:
    assert run_cli(data_dir, "verify", "--deep").returncode == 0
    report = json.loads(run_cli(data_dir, "doctor", "--json").stdout)
    named = {check["name"]: check["verdict"] for check in report["checks"]}
    assert {"ONNX Runtime", "FAISS", "DICOM port", "HTTP port", "disk", "data"} <= set(named)
    assert named["ONNX Runtime"] == named["FAISS"] == named["data"] == "ok"


def test_a_running_node_is_asked_and_fed(node: RunningNode, tmp_path: Path) -> None:
    assert node.get("/healthz")[0] == 200
    assert json.loads(node.get("/readyz")[1]) == {"status": "ready", "problems": []}
    new = tmp_path / "new.dcm"
    write(study("stripes", 9), new)
    assert node.cli("import", str(new)).returncode == 0
    assert node.wait_until_embedded(20)["running"] is True
    assert (
        studies(node.cli("query", "--study", "1.2.2.9", "-k", "3", "--json").stdout)[0][:6]
        == "1.2.2."
    )
    metrics = node.get("/metrics")[1]
    assert 'cbmir_objects{kind="instances"} 20.0' in metrics
    assert 'cbmir_embedding_state{kind="embedded"} 19.0' in metrics
    assert node.get("/nothing")[0] == 404
    echo = node.cli("echo", f"CBMIR@127.0.0.1:{node.dicom_port}")
    assert (echo.returncode, "answers" in echo.stdout) == (0, True)
    assert node.cli("echo", f"WRONG@127.0.0.1:{node.dicom_port}").returncode == 1
    assert node.cli("echo", "nonsense").returncode == 2
    assert node.stop() == 0
    assert "Traceback" not in node.log


def test_another_model_takes_over_without_a_gap(node: RunningNode, tmp_path: Path) -> None:
    before = node.status()["model"]
    build_model(tmp_path / "tiny.onnx", name="tiny")
    assert "installed tiny" in node.cli("model", "install", str(tmp_path / "tiny.onnx")).stdout
    assert node.cli("model", "use", "tiny").returncode == 0
    answer = node.cli("query", "--study", "1.2.1.1", "--json")
    assert answer.returncode == 0  # before, during and after the switch
    node._wait_for(lambda: node.status()["model"] != before, 60, "switch to the new model")
    assert json.loads(node.cli("query", "--study", "1.2.1.1", "--json").stdout)["model"] == "tiny:1"
    listed = {row["name"]: row for row in json.loads(node.cli("model", "list", "--json").stdout)}
    assert listed["tiny"]["state"] == "active"
    assert listed["tiny"]["embedded"] == 18
    assert json.loads(node.cli("model", "info", "--json").stdout)["name"] == "tiny"
    assert node.cli("verify").returncode == 0
    unknown = node.cli("model", "use", "nothing")
    assert (unknown.returncode, "tiny:1" in unknown.stderr) == (1, True)


def test_dcmtk_stores_and_asks(node: RunningNode, tmp_path: Path) -> None:
    needs_program("storescu", "findscu", "echoscu", package="dcmtk")
    port = str(node.dicom_port)
    for number in range(7, 10):
        write(study("dots", number), tmp_path / f"{number}.dcm")
    files = [str(path) for path in sorted(tmp_path.glob("[789].dcm"))]
    subprocess.run(["echoscu", "-aec", "CBMIR", "127.0.0.1", port], check=True, timeout=60)
    subprocess.run(["storescu", "-aec", "CBMIR", "127.0.0.1", port, *files], check=True, timeout=60)
    node.wait_until_embedded(22)
    keys = ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3.7", "StudyDescription"]
    asked = subprocess.run(
        ["findscu", "-S", "-aec", "CBMIR_SIM", "127.0.0.1", port]
        + [part for key in keys for part in ("-k", key)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers = (asked.stderr + asked.stdout).splitlines()
    found = [line.split("[")[1].split("]")[0].strip() for line in answers if "(0008,1030)" in line]
    assert found[:5] == ["dots"] * 5


def test_wrong_usage_is_told_apart_from_failure(tmp_path: Path, data_dir: Path) -> None:
    assert run_cli(data_dir, "query").returncode == 2
    assert run_cli(data_dir, "query", "--study", generate_uid()).returncode == 1
    assert run_cli(data_dir, "query", "--study", "1.2.1.1", "--age", "old").returncode == 2
    assert run_cli(data_dir, "import", "/does/not/exist").returncode == 2
    assert run_cli(data_dir, "nonsense").returncode == 2
    missing = run_cli(tmp_path / "none", "status")
    assert (missing.returncode, "--data-dir" in missing.stderr) == (1, True)
    broken = tmp_path / "broken.toml"
    broken.write_text("[dicom]\nprot = 1\n")
    checked = run_cli(data_dir, "config", "check", "--config", str(broken))
    assert (checked.returncode, "dicom.prot" in checked.stderr) == (1, True)
    assert run_cli(data_dir, "config", "check").returncode == 0
    assert run_cli(data_dir, "db", "upgrade").returncode == 0
    shown = run_cli(data_dir, "config", "show", "--json")
    assert json.loads(shown.stdout)["dicom"]["ae_title"] == "CBMIR"
