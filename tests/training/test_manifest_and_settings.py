"""What training refuses before it starts."""

import pytest

from cbmir_node.errors import ConfigurationError
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.manifest import load_pictures, read_manifest, used_images
from cbmir_node.training.settings import TrainingSettings


def test_rows_of_a_split_are_read(manifest):
    images = read_manifest(manifest, "val")
    assert len(images) == 8
    assert {image.split for image in images} == {"val"}
    assert images[0].file == manifest.parent / "bars-6.png"
    assert len(read_manifest(manifest)) == 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 100}, "multiple of 32"),
        ({"batch_size": 4}, "at least 8"),
        ({"width": 0.5}, "init random"),
        ({"width": 0.0, "init": "random"}, "above 0"),
        ({"recipe": "qayyum"}, "init random"),
        ({"recipe": "vgg"}, "must be one of default, qayyum"),
        ({"attention": False}, "default has no attention"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingSettings(**wrong)


def test_a_left_out_label_is_nowhere_and_an_unknown_one_is_refused(manifest):
    images, held_out = used_images(manifest, TrainingSettings(left_out=("bars", "discs")))
    assert {image.label for image in images} == {"boards", "stripes"}
    assert {image.label for image in held_out} == {"boards", "stripes"}
    with pytest.raises(ConfigurationError, match=r"label\(s\) stars"):
        used_images(manifest, TrainingSettings(left_out=("stars",)))


def test_a_final_run_trains_on_val_too_and_never_on_test(manifest):
    images, held_out = used_images(manifest, TrainingSettings(final=True))
    assert [image.split for image in images].count("val") == 8
    assert {image.split for image in images} == {"train", "val"}
    assert held_out == []


HEADER = "file,label,finding,patient_id,split\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,split\n", r"lacks the column\(s\) finding, patient_id"),
        (HEADER + "a.png,,,p,train\n", "line 2: column label is empty"),
        (HEADER + "a.png,x,,p,dev\n", "line 2: split is 'dev'"),
        (HEADER + "a.png,x,,p,train\nb.png,x,,p,test\n", "patient p is in two splits"),
        (HEADER + "a.png,x,,p,val\n", "no rows of split train"),
    ],
)
def test_a_wrong_manifest_says_where(tmp_path, text, message):
    path = tmp_path / "manifest.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_manifest(path, "train")


def test_a_missing_picture_is_named(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + "gone.png,x,,p,train\n")
    with pytest.raises(ConfigurationError, match=r"gone\.png"):
        load_pictures(read_manifest(path, "train"), Preprocessing(32, 32, 1, "pad", (0.0,), (1.0,)))
