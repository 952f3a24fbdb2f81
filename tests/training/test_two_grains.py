"""The heads of the default model, each against data whose answer is known."""
# ruff: noqa: E402 - the imports below need PyTorch

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs: pip install 'cbmir-node[train]'")

from cbmir_node.training.appearance import fit_appearance
from cbmir_node.training.checkpoint import Vocabulary
from cbmir_node.training.finding_heads import fit_finding_heads, joint_entries
from cbmir_node.training.occlusion import fit_saliency
from cbmir_node.training.two_grains import TwoGrainNetwork, _pooled_by_cell

VOCABULARY = Vocabulary(
    ("CT_HEAD", "DX_KNEE", "US_LIVER"),
    (("CT_HEAD", "bleeding"), ("CT_HEAD", "normal"), ("US_LIVER", "normal")),
)


def _network(seed: int = 0) -> TwoGrainNetwork:
    torch.manual_seed(seed)
    network = TwoGrainNetwork(3, [0, 0, 1, 2], findings=3, size=64, width=0.25)
    return network.eval()


def test_classes_with_one_finding_or_none_have_one_entry():
    assert joint_entries(VOCABULARY) == [
        ("CT_HEAD", "bleeding"),
        ("CT_HEAD", "normal"),
        ("DX_KNEE", ""),
        ("US_LIVER", ""),
    ]


def test_finding_heads_tell_findings_apart_within_their_class_only():
    random = np.random.default_rng(0)
    labels = np.array(["CT_HEAD"] * 60 + ["DX_KNEE"] * 20)
    findings = np.array((["bleeding"] * 20 + ["normal"] * 20 + [""] * 20) + [""] * 20)
    features = random.normal(size=(80, 50)).astype(np.float32)
    features[:20, 3] += 4
    weight, bias = fit_finding_heads(features, labels, findings, joint_entries(VOCABULARY))
    fresh = random.normal(size=(200, 50)).astype(np.float32)
    fresh[:100, 3] += 4
    scores = fresh @ weight.T + bias
    assert np.mean((scores[:, 0] > scores[:, 1]) == (np.arange(200) < 100)) > 0.8
    assert not weight[2:].any()
    assert not bias[2:].any()


def test_novelty_is_the_distance_to_the_nearest_class():
    random = np.random.default_rng(0)
    classes = ("A", "B")
    labels = np.array(["A", "B"] * 200)
    features = random.normal(size=(400, 30)).astype(np.float32)
    features[labels == "B", :10] += 3
    fitted = fit_appearance(features, labels, classes, 8)

    def novelty(values):
        places = ((values - fitted.mean) / fitted.scale) @ fitted.components @ fitted.whitening
        offsets = places[:, None] - fitted.class_centres[None]
        return (offsets**2).sum(axis=2).min(axis=1) / fitted.farthest

    assert np.mean(novelty(features) > 1) == pytest.approx(0.02, abs=0.005)
    elsewhere = random.normal(size=(50, 30)).astype(np.float32)
    elsewhere[:, :10] -= 6
    assert (novelty(elsewhere) > 1).all()


def test_a_novel_picture_keeps_its_best_class_and_loses_its_certainty():
    network = _network()
    embedding = torch.nn.functional.normalize(network.class_eye.label_prototypes[:1], dim=1)
    network.whitening.copy_(torch.eye(96))
    near, far = torch.zeros(1, 96), torch.zeros(1, 96)
    near[0, 0], far[0, 0] = 0.5, 1.5
    sure = torch.softmax(network.logits(embedding, near), dim=1)
    unsure = torch.softmax(network.logits(embedding, far), dim=1)
    assert sure.argmax() == unsure.argmax() == 0
    assert sure.max() > 0.99
    assert unsure.max() < 0.6


def test_joint_probabilities_share_out_each_class_among_its_findings():
    network = _network()
    network.finding_weight.normal_()
    embedding = torch.nn.functional.normalize(torch.randn(5, 256), dim=1)
    cells = torch.rand(5, network.finding_weight.shape[1]) * 0.1
    joint = network.joint_probabilities(embedding, cells)
    cosines = network.class_eye.label_cosines(embedding)
    of_class = torch.softmax(network.class_eye.scale * cosines, dim=1)
    torch.testing.assert_close(joint @ network.membership, of_class)


@pytest.mark.parametrize("length", [3, 8, 16])
def test_cells_are_those_of_an_adaptive_pooling(length):
    features = torch.randn(2, 4, length, length)
    expected = torch.nn.functional.adaptive_avg_pool2d(features, 3).flatten(1)
    torch.testing.assert_close(_pooled_by_cell(features), expected)


def test_saliency_finds_the_only_part_that_matters():
    network = _network(1)
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(24, 3, 128, 128)
    places = torch.randint(0, 2, (24, 2), generator=generator)
    for picture, (row, column) in zip(image, places.tolist(), strict=True):
        y, x = 64 * row, 64 * column
        picture[:, y : y + 64, x : x + 64] = torch.randn(3, 64, 64, generator=generator)
    fit_saliency(network, image, generator)
    with torch.no_grad():
        *_, saliency = network(image)
    assert saliency.shape == (24, 1, 4, 4)
    assert saliency.amin() >= 0
    assert saliency.amax() <= 1
    quarters = torch.nn.functional.avg_pool2d(saliency, 2).flatten(1)
    found = quarters.argmax(dim=1) == places[:, 0] * 2 + places[:, 1]
    assert found.float().mean() > 0.6  # a quarter by chance; noise looks much like noise


def test_in_a_novel_picture_the_weight_moves_to_its_appearance():
    network = _network()
    network.components.normal_()
    network.whitening.copy_(torch.eye(96))
    image = torch.rand(2, 3, 128, 128)
    lengths = {}
    for name, farthest in (("familiar", 1e9), ("novel", 1e-9)):
        network.farthest.fill_(farthest)
        with torch.no_grad():
            embedding, *_ = network(image)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
        lengths[name] = embedding[:, -96:].norm(dim=1)
    # of the weights 1, .7 and .5
    torch.testing.assert_close(
        lengths["familiar"], torch.full((2,), 0.5 / (1 + 0.49 + 0.25) ** 0.5)
    )
    assert (lengths["novel"] > 0.999).all()
