"""Time of one exact search per strategy, against one pass over the same memory.

Run ``python benchmarks/index_search.py --help``. Times are medians; compare the ratios, absolute
figures belong to the machine. ``pass`` is NumPy's sum over the vectors, one thread: what reading
them from memory costs. Hash codes are measured against a pass over the codes.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import numpy as np
from numpy.random import Generator

from cbmir_node.index import (
    FlatIndex,
    Float32Array,
    HammingIndex,
    Int64Array,
    UInt8Array,
    VectorArray,
    flat_index,
    gpu_count,
)
from cbmir_node.index.exact import unit_length
from cbmir_node.index.hamming import distances
from cbmir_node.index.protocol import FloatMetric
from cbmir_node.index.rows import Rows
from cbmir_node.index.scan import load_faiss, scan_by_kernel, scan_by_product

_STUDY_IMAGES = 100
_K = 20


def images_like(generator: Generator, rows: int, dimension: int) -> Float32Array:
    """Draw unit vectors [rows, dimension] around 2,000 centres on a 24-dimensional subspace."""
    projection = generator.standard_normal((24, dimension)).astype(np.float32) / np.sqrt(24)
    centres = np.float32(0.6) * generator.standard_normal((2000, 24)).astype(np.float32)
    result = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, 10_000):
        count = min(10_000, rows - start)
        points = centres[generator.integers(0, 2000, count)]
        points = points + generator.standard_normal((count, 24)).astype(np.float32)
        noise = generator.standard_normal((count, dimension)).astype(np.float32)
        result[start : start + count] = unit_length(
            (points @ projection + 0.35 * noise).astype(np.float32)
        )
    return result


def median_ms(call: Callable[[int], object], repetitions: int) -> float:
    """Return the median time of ``call(0)``, ``call(1)``… in milliseconds, after one warm-up."""
    call(0)
    times = []
    for number in range(repetitions):
        begin = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def single_queries(
    index: FlatIndex | HammingIndex, queries: VectorArray, ids: Int64Array, generator: Generator
) -> dict[str, Callable[[int], object]]:
    """Return one call per way to ask for one vector."""

    def one(number: int) -> VectorArray:
        row = number % len(queries)
        return queries[row : row + 1]

    def filtered(number: int, allowed: Int64Array) -> object:
        return index.search(one(number), _K, allowed=allowed)

    calls: dict[str, Callable[[int], object]] = {
        "one query": lambda n: index.search(one(n), _K),
        "one query, 50 ids excluded": lambda n: index.search(one(n), _K, excluded=ids[:50]),
    }
    for share in (0.5, 0.1, 0.02, 0.01, 0.001):
        allowed = generator.choice(ids, max(1, int(share * len(ids))), replace=False)
        calls[f"one query, {share:.1%} allowed"] = partial(filtered, allowed=allowed)
    return calls


def study_queries(
    index: FlatIndex, vectors: Float32Array, study: Float32Array, metric: FloatMetric
) -> dict[str, Callable[[int], object]]:
    """Return one call per way to ask for a whole study."""
    faiss = load_faiss()
    plain = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(vectors.shape[1])
    plain.add(vectors)

    def as_shipped(_: int) -> object:
        faiss.omp_set_num_threads(os.cpu_count())  # the node's own scans use one
        return plain.search(study, _K)

    return {
        "study, FAISS IndexFlat, all cores": as_shipped,
        "study, one FAISS pass per image": lambda _: scan_by_kernel(
            vectors, None, study, _K, metric
        ),
        "study, blocked matrix product": lambda _: scan_by_product(
            vectors, None, study, _K, metric
        ),
        "study, FlatIndex (exact scores)": lambda _: index.search(study, _K),
    }


def code_queries(
    codes: UInt8Array, queries: UInt8Array, ids: Int64Array, generator: Generator
) -> dict[str, Callable[[int], object]]:
    """Return one call per way to ask for one code, and for as many as a study has images."""
    faiss = load_faiss()
    index = HammingIndex(codes.shape[1], Rows.of(ids, codes))
    plain = faiss.IndexBinaryFlat(8 * codes.shape[1])
    plain.add(codes)
    study = np.ascontiguousarray(queries[:_STUDY_IMAGES])

    def as_shipped(number: int) -> object:
        row = number % len(queries)
        return plain.search(queries[row : row + 1], _K)

    calls: dict[str, Callable[[int], object]] = {
        "codes, distances alone": lambda n: distances(queries[n % len(queries)], codes),
        "codes, FAISS IndexBinaryFlat": as_shipped,
    }
    for what, call in single_queries(index, queries, ids, generator).items():
        calls[f"codes, {what}"] = call
    calls["codes, study"] = lambda _: index.search(study, _K)
    return calls


def measure_codes(
    vectors: Float32Array, asked: Float32Array, ids: Int64Array, bits: int, repetitions: int
) -> list[dict[str, Any]]:
    """Time searches among the sign bits of random projections of the vectors."""
    generator = np.random.default_rng(2027)
    planes = generator.standard_normal((vectors.shape[1], bits)).astype(np.float32)
    codes, queries = (np.packbits(part @ planes > 0, axis=1) for part in (vectors, asked))
    words = codes.view(np.uint64) if codes.shape[1] % 8 == 0 else codes
    unit = median_ms(lambda _: words.sum(), 50)
    results: list[dict[str, Any]] = [{"what": "codes, pass over them (NumPy sum)", "ms": unit}]
    for what, call in code_queries(codes, queries, ids, generator).items():
        few = 5 if what == "codes, study" else repetitions
        results.append({"what": what, "ms": median_ms(call, few)})
    for result in results:
        result["passes"] = result["ms"] / unit
    return results


def measure(
    rows: int, dimension: int, queries: int, metric: FloatMetric, device: Any, bits: int
) -> list[dict[str, Any]]:
    """Time every strategy; see the module's docstring."""
    generator = np.random.default_rng(2026)
    drawn = images_like(generator, rows + queries + _STUDY_IMAGES, dimension)
    vectors, asked = drawn[:rows], drawn[rows : rows + queries]
    study = np.ascontiguousarray(drawn[rows + queries :])
    ids = np.arange(1, rows + 1, dtype=np.int64)
    index = flat_index(dimension, metric, device, Rows.of(ids, vectors))
    unit = median_ms(lambda _: vectors.sum(), 10)
    results: list[dict[str, Any]] = [{"what": "pass over the vectors (NumPy sum)", "ms": unit}]
    for what, call in single_queries(index, asked, ids, generator).items():
        results.append({"what": what, "ms": median_ms(call, queries)})
    for what, call in study_queries(index, vectors, study, metric).items():
        results.append({"what": what, "ms": median_ms(call, 5)})
    for result in results:
        result["passes"] = result["ms"] / unit
    if bits:
        results += measure_codes(vectors, np.concatenate([asked, study]), ids, bits, queries)
    return results


@click.command(context_settings={"show_default": True})
@click.option("--rows", default=100_000, type=click.IntRange(min=2000), help="Vectors searched.")
@click.option("--dimension", default=256, type=click.IntRange(min=1), help="Their length.")
@click.option("--queries", default=200, type=click.IntRange(min=1), help="Queries per strategy.")
@click.option("--metric", default="cosine", type=click.Choice(["cosine", "euclidean"]))
@click.option("--device", default="cpu", type=click.Choice(["auto", "gpu", "cpu"]))
@click.option("--bits", default=128, type=click.IntRange(min=0), help="Of hash codes; 0: none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    rows: int,
    dimension: int,
    queries: int,
    metric: FloatMetric,
    device: str,
    bits: int,
    as_json: bool,
) -> None:
    """Measure exact vector search, k = 20."""
    faiss = load_faiss()
    setting = {
        "rows": rows,
        "dimension": dimension,
        "metric": metric,
        "bits": bits,
        "device": device,
        "gpus": gpu_count(),
        "faiss": faiss.__version__,
        "cores": os.cpu_count(),
    }
    results = measure(rows, dimension, queries, metric, device, bits)
    if as_json:
        click.echo(json.dumps({"setting": setting, "results": results}, indent=2))
        return
    click.echo(", ".join(f"{key} {value}" for key, value in setting.items()))
    click.echo(f"{'':36} {'ms':>9} {'passes':>9}")
    for result in results:
        click.echo(f"{result['what']:36} {result['ms']:9.2f} {result['passes']:9.2f}")


if __name__ == "__main__":
    main()
