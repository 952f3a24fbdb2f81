"""Why a file is not taken for a network, in words that say what to do about it."""

from __future__ import annotations

import re

from cbmir_node.embedding.metadata import Breach

_EXPORT = "export the network with torch.onnx.export, see 'Bringing another network' in onnx/README"

_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a PyTorch checkpoint, a Keras file or another ZIP archive", _EXPORT),
    (b"\x80\x02", "a pickle, such as an old PyTorch checkpoint", _EXPORT),
    (b"\x89HDF", "an HDF5 file, such as Keras weights", "convert it with tf2onnx"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (b"<", "a web page or XML: the download gave something else", "download the file itself"),
    (b"{", "JSON", "give the .onnx file"),
    (b"\x1f\x8b", "compressed with gzip", "gunzip it first"),
)
"""First bytes, what such a file is, what to do."""

_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        "(?i)external (data|tensor)",
        "its weights lie in another file (external data)",
        "put everything into one file: export with external_data=False, or onnx.save(onnx.load("
        "'in.onnx'), 'out.onnx') where the data file is beside it",
    ),
    (
        r"opset \d+ is under development|guarantees\* support",
        "its opset is newer than this ONNX Runtime",
        "export with opset_version=18, or update onnxruntime",
    ),
    (
        "IR version",
        "its IR version is newer than this ONNX Runtime",
        "set model.ir_version = 10 before onnx.save, or update onnxruntime",
    ),
    (
        "is not a registered function/op|No Op registered|No opset import",
        "it uses an operator that ONNX Runtime does not have",
        "express this layer with ordinary operators, or export with a lower opset_version",
    ),
    (
        "NOT_IMPLEMENTED|Could not find an implementation",
        "it uses an operator on a type that ONNX Runtime does not compute",
        "export the network in float32 (model.float())",
    ),
    (
        "Type Error|does not match expected type",
        "its declared types contradict its operators",
        "export it anew in float32; do not change types in the finished file",
    ),
    (
        "INVALID_PROTOBUF|No graph was found",
        "it is no ONNX, or the end is missing",
        "compare its size with the original and copy it again; otherwise export it anew",
    ),
)
"""What ONNX Runtime's message contains, what it means, what to do."""


def load_failure(content: bytes, message: str) -> Breach:
    """Explain why ONNX Runtime refuses a file.

    Parameters
    ----------
    content : bytes
        Of the file.
    message : str
        What the runtime says.
    """
    if not content:
        return Breach("the file is empty", "copy or download it again")
    for beginning, kind, remedy in _OTHER_FORMATS:
        if content.startswith(beginning):
            return Breach(f"the file is no ONNX but {kind}", remedy)
    said = re.sub(r"\s*/\S+\.(h|cc):\d+ .*?\) (?=[A-Z])", " ", message).strip()
    for pattern, meaning, remedy in _REASONS:
        if re.search(pattern, message):
            return Breach(f"the file cannot be loaded: {meaning} ({said})", remedy)
    return Breach(
        f"the file cannot be loaded: {said}", "onnx.checker.check_model tells more; export it anew"
    )
