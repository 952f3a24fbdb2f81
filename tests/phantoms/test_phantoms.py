"""The phantoms are what other tests take them for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.phantoms.objects import image_uids, study


def test_the_same_seed_draws_the_same_patient() -> None:
    one, again, other = (study("DX knee", 0, seed=seed)[0] for seed in (1, 1, 2))
    assert one == again
    assert one.PixelData != other.PixelData
    assert one.PatientID != other.PatientID


@pytest.mark.parametrize("name", ["MR brain", "US liver"])
def test_uids_are_known_before_anything_is_drawn(name: str) -> None:
    assert [str(image.SOPInstanceUID) for image in study(name, 1)] == image_uids(name, 1)


def test_ct_has_hounsfield_units() -> None:
    image = study("CT head", 0)[0]
    units = image.pixel_array.astype(int) + int(image.RescaleIntercept)
    middle = units[130:190, 130:190]
    assert np.median(units[:20, :20]) == pytest.approx(-1000, abs=20)
    assert 0 < np.median(middle) < 50  # brain and ventricles
    assert np.percentile(units, 99) > 700  # skull
