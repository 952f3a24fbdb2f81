"""Intervals over patients: what is resampled, and that they cover."""

from __future__ import annotations

import numpy as np
import pytest

from cbmir_node.evaluation.bootstrap import PatientBootstrap, intervals


def test_the_value_is_the_macro_average_and_every_resample_holds_every_class() -> None:
    classes = np.array(["a"] * 4 + ["b"])
    patients = np.array(["1", "1", "2", "3", "4"])
    values = np.array([[1.0], [1.0], [0.0], [0.0], [0.5]])
    resample = PatientBootstrap(classes, patients)
    found = intervals(resample.macro(values))[0]
    assert found.value == pytest.approx((0.5 + 0.5) / 2)
    assert intervals(resample.pooled(values))[0].value == pytest.approx(2.5 / 5)
    # all of patient 1, or nobody of it: class b, of one patient, is always there
    assert (found.low, found.high) == pytest.approx(((0 + 0.5) / 2, (1 + 0.5) / 2))


def test_images_of_one_patient_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    per_patient = random.random(20)
    alone = PatientBootstrap(np.full(20, "a"), np.arange(20).astype(str))
    tenfold = PatientBootstrap(np.full(200, "a"), np.repeat(np.arange(20), 10).astype(str))
    one = intervals(alone.macro(per_patient[:, None]))[0]
    ten = intervals(tenfold.macro(np.repeat(per_patient, 10)[:, None]))[0]
    # ten pictures of each patient tell no more than one
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))


def test_intervals_cover_and_paired_ones_are_narrower() -> None:
    random = np.random.default_rng(1)
    covered, rounds = 0, 120
    for _ in range(rounds):
        classes = np.repeat(["a", "b"], 40)
        patients = np.arange(80).astype(str)
        hardness = random.normal(size=80)
        values = np.stack([hardness, hardness + 0.3 + 0.1 * random.normal(size=80)], axis=1)
        resample = PatientBootstrap(classes, patients, resamples=200)
        samples = resample.macro(values)
        first, second = intervals(samples)
        gain = intervals(samples[:, 1:] - samples[:, :1])[0]
        covered += first.low <= 0 <= first.high
        assert gain.high - gain.low < (second.high - second.low) / 3
        assert gain.low < gain.value < gain.high
    assert 0.88 <= covered / rounds <= 0.99


def test_systems_of_one_table_see_the_same_resamples() -> None:
    classes, patients = np.repeat(["a", "b"], 5), np.arange(10).astype(str)
    values = np.random.default_rng(2).random((10, 1))
    first, again = (PatientBootstrap(classes, patients).macro(values) for _ in range(2))
    assert np.array_equal(first, again)
    with pytest.raises(ValueError, match="9 rows for 10 queries"):
        PatientBootstrap(classes, patients).macro(values[:9])
