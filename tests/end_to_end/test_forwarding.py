"""What was acknowledged is sent on, whatever dies in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydicom.uid import CTImageStorage, generate_uid

from cbmir_node.config import Settings
from tests.conftest import free_port
from tests.dicom.peers import EXPLICIT, association, until
from tests.dicom.receivers import storescp
from tests.end_to_end.conftest import RunningNode
from tests.objects import make_object
from tests.small_node import open_small_stores

CONFIGURATION = """
[peers]
STORESCP = {{ host = "127.0.0.1", port = {port} }}

[archive]
duplicates = "replace"

[forwarding]
rules = [{{ to = "STORESCP", modalities = ["CT"] }}]
first_retry_s = 0.5
"""


def test_kill_9_between_acknowledgement_and_sending_on(
    start_node: Callable[..., RunningNode], tmp_path: Path
) -> None:
    data_dir, configuration, port = tmp_path / "data", tmp_path / "node.toml", free_port()
    configuration.write_text(CONFIGURATION.format(port=port))
    open_small_stores(Settings(data_dir=data_dir)).close()
    node = start_node(data_dir, "--config", str(configuration))
    study = generate_uid()
    datasets = [make_object(StudyInstanceUID=study) for _ in range(5)]
    with association(node.dicom_port, (CTImageStorage, EXPLICIT), release=False) as opened:
        for dataset in datasets:
            assert opened.send_c_store(dataset).Status == 0
        node.kill()
    folder = tmp_path / "received"
    with storescp(folder, port=port):
        node = start_node(data_dir, "--config", str(configuration))
        until(lambda: node.metric('cbmir_forwards{kind="sent"}') == 5, 60)
        assert node.metric('cbmir_forwarded_total{kind="STORESCP sent"}') == 5
    received = {str(file.name).split(".", 1)[1] for file in folder.iterdir()}
    assert received == {dataset.SOPInstanceUID for dataset in datasets}
    assert node.cli("forward", "list").stdout == "nothing is queued\n"
