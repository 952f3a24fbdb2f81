"""What a network really does with pictures, as far as no data set is needed to see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from cbmir_node.embedding.contract import CODE, LOGITS, SALIENCY, Breach
from cbmir_node.embedding.session import LARGEST_VALUE, EmbeddingModel
from cbmir_node.errors import ModelError
from cbmir_node.imaging.network_input import Preprocessing, network_input

PICTURES = 16
_TOGETHER = 5
_ALONE = (0, 3)
_DEVIATION = 0.01
"""Of an output's largest value: more than rounding and reduced precision on a GPU explain."""
_ALIKE = 0.9999
"""Cosine above which different pictures count as not told apart."""

Float32Array = npt.NDArray[np.float32]
Outputs = dict[str, Float32Array]


@dataclass
class Behaviour:
    """What was seen.

    Attributes
    ----------
    errors : list of Breach
        The node would give wrong answers or none.
    warnings : list of Breach
        It works, but hardly as meant.
    facts : dict of str to str
        Measured, for a person.
    """

    errors: list[Breach] = field(default_factory=list)
    warnings: list[Breach] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


def synthetic_inputs(preprocessing: Preprocessing) -> Float32Array:
    """Return network inputs of `PICTURES` unlike grey pictures, coarse to fine, dark to bright.

    Returns
    -------
    float32 [PICTURES, C, height, width]
    """
    random = np.random.default_rng(0)
    inputs = []
    for number in range(PICTURES):
        cells = random.integers(0, 256, (2 + number, 3 + number)).astype(np.uint8)
        smooth = Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST
        picture = np.asarray(Image.fromarray(cells).resize((256, 192 + 16 * number), smooth))
        brightness = (number % 4 + 1) / 4
        inputs.append(network_input((picture * brightness).astype(np.uint8), preprocessing))
    return np.stack(inputs)


def observe(network: EmbeddingModel) -> Behaviour:
    """Run a network on synthetic pictures and judge what comes out."""
    inputs = synthetic_inputs(network.description.preprocessing)
    seen = Behaviour()
    try:
        alone = {number: network.outputs(inputs[number : number + 1]) for number in _ALONE}
    except ModelError as error:
        seen.errors.append(_does_not_run(error))
        return seen
    try:
        together, again = (network.outputs(inputs[:_TOGETHER]) for _ in range(2))
        rest = network.outputs(inputs[_TOGETHER:])
    except ModelError as error:
        seen.errors.append(_batch_baked_in(f"it runs on one picture, not on {_TOGETHER}: {error}"))
        return seen
    seen.errors += _shape_breaches(network, together)
    if not seen.errors:
        outputs = {name: np.concatenate([together[name], rest[name]]) for name in together}
        seen.errors += _value_breaches(outputs)
    if not seen.errors:
        seen.errors += _random_breaches(together, again)
    if not seen.errors:
        seen.errors += _batch_breaches(alone, together)
        seen.errors += _constant_breaches(network, outputs)
        seen.facts["repeated"] = "the same values, alone and in a batch"
        _judge_vectors(seen, network, outputs)
        _judge_code(seen, outputs.get(CODE))
        _judge_logits(seen, outputs.get(LOGITS))
        _judge_saliency(seen, outputs.get(SALIENCY))
    return seen


def _does_not_run(error: ModelError) -> Breach:
    return Breach(
        f"it does not run on a picture of the declared size: {error}",
        "compare height, width and channels of 'cbmir.preprocessing' with the example that the "
        "network was exported with",
    )


def _batch_baked_in(problem: str) -> Breach:
    return Breach(
        problem,
        "a batch size is fixed inside the network: reshape with x.flatten(1) rather than "
        "x.view(1, -1), and export with an example of two pictures and a dynamic batch",
    )


def _shape_breaches(network: EmbeddingModel, outputs: Outputs) -> Iterator[Breach]:
    """Compare with what the file declares."""
    description = network.description
    expected = {name: (_TOGETHER, width) for name, width in description.spaces.items()}
    if LOGITS in outputs:
        expected[LOGITS] = (_TOGETHER, len(description.labels))
    if CODE in outputs:
        expected[CODE] = (_TOGETHER, description.code_bits)
    for name, shape in expected.items():
        if outputs[name].shape != shape:
            yield _batch_baked_in(
                f"output {name!r} is declared {list(shape)} but is {list(outputs[name].shape)}"
            )
    maps = outputs.get(SALIENCY)
    if maps is not None and (maps.ndim != 4 or maps.shape[:2] != (_TOGETHER, 1)):
        yield Breach(
            f"output {SALIENCY!r} is {list(maps.shape)}, not [{_TOGETHER}, 1, h, w]",
            "give one map per picture and keep its channel dimension",
        )


def _value_breaches(outputs: Outputs) -> Iterator[Breach]:
    for name, values in outputs.items():
        if not bool(np.all(np.abs(values) <= LARGEST_VALUE)):  # false for NaN as well
            yield Breach(
                f"it gives non-finite {name!r} values, or some beyond ±{LARGEST_VALUE:g}",
                "look for a division by a norm that may be 0, a logarithm, or float16 inside; "
                "check mean and std of 'cbmir.preprocessing', in grey levels of 0-255",
            )


def _difference(one: Float32Array, other: Float32Array) -> float:
    """Return the largest difference as a share of the largest value."""
    largest = float(max(np.abs(one).max(), np.abs(other).max()))
    return float(np.abs(one - other).max()) / largest if largest else 0.0


def _random_breaches(first: Outputs, again: Outputs) -> Iterator[Breach]:
    worst = {name: _difference(values, again[name]) for name, values in first.items()}
    for name, difference in worst.items():
        if difference > _DEVIATION:
            yield Breach(
                f"{name!r} of the same pictures differs the second time (by {difference:.0%} of "
                "its largest value)",
                "call model.eval() before the export: dropout, or another random layer, is active",
            )


def _batch_breaches(alone: dict[int, Outputs], together: Outputs) -> Iterator[Breach]:
    for name, batch in together.items():
        worst = max(
            _difference(outputs[name][0], batch[number]) for number, outputs in alone.items()
        )
        if worst > _DEVIATION:
            yield Breach(
                f"{name!r} of a picture depends on its neighbours in the batch "
                f"(by {worst:.0%} of its largest value)",
                "call model.eval() before the export (batch normalisation was in training mode), "
                "and normalise over dim=1, not over the batch",
            )


def _constant_breaches(network: EmbeddingModel, outputs: Outputs) -> Iterator[Breach]:
    for name in network.description.spaces:
        if _difference(outputs[name][1:], outputs[name][:-1]) < 1e-6:
            yield Breach(
                f"{name!r} is the same for every picture",
                "the weights were not loaded, or the output does not depend on the input",
            )


def _judge_vectors(seen: Behaviour, network: EmbeddingModel, outputs: Outputs) -> None:
    for name in network.description.spaces:
        lengths = np.linalg.norm(outputs[name].astype(np.float64), axis=1)
        low, high = lengths.min(), lengths.max()
        unit = abs(low - 1) < 1e-3 and abs(high - 1) < 1e-3
        seen.facts[f"length of {name}"] = (
            "1" if unit else f"{low:.3g} to {high:.3g}: euclidean counts it, cosine does not"
        )
        if low == 0:
            seen.warnings.append(
                Breach(
                    f"{name!r} is zero for some pictures, which have no direction to compare",
                    "take the features before the last ReLU, or more of them",
                )
            )
            continue
        units = outputs[name] / lengths[:, None]
        alike = (units @ units.T)[np.triu_indices(PICTURES, 1)]
        seen.facts[f"cosine in {name}"] = (
            f"{alike.min():.3f} to {alike.max():.3f} between {PICTURES} unlike pictures"
        )
        if alike.min() > _ALIKE:
            seen.warnings.append(
                Breach(
                    f"{name!r} hardly tells unlike pictures apart (cosine at least {_ALIKE})",
                    "check that the trained weights were loaded, and mean and std of "
                    "'cbmir.preprocessing'; subtract the mean feature before normalising",
                )
            )


def _judge_code(seen: Behaviour, codes: Float32Array | None) -> None:
    if codes is None:
        return
    bits = codes > 0
    constant = int((bits.all(axis=0) | ~bits.any(axis=0)).sum())
    distinct = len(np.unique(np.packbits(bits, axis=1), axis=0))
    width = bits.shape[1]
    seen.facts["code"] = (
        f"{width - constant} of {width} bits vary, {distinct} codes for {PICTURES} unlike pictures"
    )
    if constant <= width / 2 and distinct > PICTURES / 2:
        return
    probabilities = codes.min() >= 0 and codes.max() <= 1
    seen.warnings.append(
        Breach(
            f"the hash has collapsed: {constant} of {width} bits never change, {distinct} codes "
            f"for {PICTURES} unlike pictures",
            "export the code before its sigmoid, or less 0.5: a bit is set where the value is > 0"
            if probabilities
            else "subtract each bit's mean over a sample of real pictures, so that it is set for "
            "about half of them",
        )
    )


def _judge_logits(seen: Behaviour, logits: Float32Array | None) -> None:
    if logits is None:
        return
    classes = logits.shape[1]
    predicted = len(np.unique(logits.argmax(axis=1)))
    seen.facts["logits"] = (
        f"{predicted} of {classes} classes predicted for {PICTURES} unlike pictures, values from "
        f"{logits.min():.3g} to {logits.max():.3g}"
    )
    if classes > 1 and np.ptp(logits, axis=1).max() < 1e-6:
        seen.warnings.append(
            Breach(
                "the logits do not tell classes apart",
                "check that the classifier's weights were loaded, or leave logits out",
            )
        )
    elif classes > 1 and logits.min() >= 0 and logits.max() <= 1:
        sums_to_one = bool(np.allclose(logits.sum(axis=1), 1, atol=1e-3))
        seen.warnings.append(
            Breach(
                "the logits look like probabilities already: the node takes the softmax of them, "
                "and no probability would be high enough to be trusted",
                "export the scores before the softmax"
                if sums_to_one
                else "export the scores before the sigmoid; findings that can be there together "
                "are no classes: leave logits and labels out",
            )
        )


def _judge_saliency(seen: Behaviour, maps: Float32Array | None) -> None:
    if maps is None:
        return
    height, width = maps.shape[2:]
    seen.facts["saliency"] = f"{height} x {width}, values from {maps.min():.3g} to {maps.max():.3g}"
    if np.ptp(maps, axis=(1, 2, 3)).max() < 1e-6:
        seen.warnings.append(
            Breach(
                "the saliency map is the same everywhere",
                "leave the output out, or check that it depends on the picture",
            )
        )
