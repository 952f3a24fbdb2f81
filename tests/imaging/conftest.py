from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cbmir_node.imaging.pictures import pictures
from tests.imaging.image_objects import write_object


@pytest.fixture
def show(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Write stored values with `write_object` and return the first picture of the object."""

    def shown(stored: np.ndarray, **options: object) -> np.ndarray:
        return pictures(write_object(tmp_path / "object.dcm", stored, **options), 1)[0].pixels

    return shown
