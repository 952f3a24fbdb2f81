"""The export script of onnx/README.md, run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cbmir_node.embedding import check
from cbmir_node.embedding.check import check_model
from cbmir_node.embedding.store import ModelStore
from tests.conftest import REPOSITORY

torch = pytest.importorskip("torch", reason="export needs: pip install 'cbmir-node[train]'")
pytest.importorskip("onnxscript", reason="export needs: pip install 'cbmir-node[train]'")


def code_blocks() -> list[str]:
    page = (REPOSITORY / "onnx" / "README.md").read_text(encoding="utf-8")
    section = page[page.index("## Bringing another network") :]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Load the script of the page."""
    path = tmp_path_factory.mktemp("script") / "export_resnet50.py"
    path.write_text(code_blocks()[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_network_is_a_resnet50_by_size_and_names(script: ModuleType) -> None:
    weights = script.resnet50().state_dict()
    assert sum(value.numel() for key, value in weights.items() if "num_b" not in key) == 23_561_152
    assert {"backbone.0.weight", "backbone.4.0.downsample.1.running_var"} < set(weights)
    assert weights["backbone.7.2.conv3.weight"].shape == (2048, 512, 1, 1)


def test_its_product_can_be_installed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block a stage instead of 3, 4, 6, 3: translating all of them takes half a minute."""
    monkeypatch.setattr(script, "BLOCKS", (1, 1, 1, 1))
    monkeypatch.setattr(check, "_TIMED_S", 0.0)
    torch.manual_seed(0)
    torch.save(script.resnet50().state_dict(), tmp_path / "ResNet50.pt")
    random = np.random.default_rng(0)
    for number in range(6):
        cells = random.integers(0, 256, (3 + number, 3 + number)).astype(np.uint8)
        Image.fromarray(cells).resize((90, 70)).save(tmp_path / f"{number}.png")
    output = tmp_path / "radimagenet-resnet50.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecated calls
        script.main(str(tmp_path / "ResNet50.pt"), str(output), str(tmp_path))
    found = check_model(output)
    assert found.errors == ()
    assert found.description is not None
    assert found.description.spaces == {"embedding": 2048}
    assert found.description.code_bits == 128
    assert found.description.preprocessing == script.PREPROCESSING
    assert found.facts is not None
    assert found.facts["length of embedding"] == "1"
    ModelStore(tmp_path / "models").install(output)


def test_the_other_networks_block_replaces_whole_parts(script: ModuleType) -> None:
    replacement = code_blocks()[1]
    for name in ("def load_backbone(weights: str)", "PREPROCESSING = Preprocessing("):
        assert code_blocks()[0].count(name) == replacement.count(name) == 1
    compile(replacement, "onnx/README.md", "exec")
