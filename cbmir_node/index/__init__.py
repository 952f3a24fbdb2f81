"""Vector indexes: caches of the catalogue's vectors that answer nearest-neighbour queries."""

from cbmir_node.index.cache import SpaceCache
from cbmir_node.index.comparison import Disagreement
from cbmir_node.index.faiss_cpu import FlatIndex
from cbmir_node.index.faiss_gpu import Device, GpuFlatIndex, flat_index, gpu_count
from cbmir_node.index.hamming import HammingIndex
from cbmir_node.index.protocol import (
    NO_NEIGHBOUR,
    Float32Array,
    Int64Array,
    Metric,
    Neighbours,
    UInt8Array,
    VectorArray,
    VectorIndex,
)
from cbmir_node.index.snapshot import (
    Snapshot,
    SpaceIdentity,
    read_snapshot,
    remove_snapshots,
    write_snapshot,
)
from cbmir_node.index.source import SourceCounts, VectorSource

__all__ = [
    "NO_NEIGHBOUR",
    "Device",
    "Disagreement",
    "FlatIndex",
    "Float32Array",
    "GpuFlatIndex",
    "HammingIndex",
    "Int64Array",
    "Metric",
    "Neighbours",
    "Snapshot",
    "SourceCounts",
    "SpaceCache",
    "SpaceIdentity",
    "UInt8Array",
    "VectorArray",
    "VectorIndex",
    "VectorSource",
    "flat_index",
    "gpu_count",
    "read_snapshot",
    "remove_snapshots",
    "write_snapshot",
]
