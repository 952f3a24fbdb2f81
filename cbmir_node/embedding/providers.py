"""Which ONNX Runtime is installed and what really runs on this machine.

The package's own list of providers names what was compiled in: onnxruntime-gpu lists CUDA on a
machine without a GPU, and falls back to the CPU in silence. Only a session knows.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from cbmir_node.errors import MissingPackageError, ModelError

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
_PACKAGES: Final = ("onnxruntime", "onnxruntime-gpu")

_IDENTITY_MODEL: Final = bytes.fromhex(
    "08083a3a0a100a017812017922084964656e74697479120474696e79"
    "5a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a0208014202100d"
)
"""An ONNX model of one Identity on float32 [1]; the `onnx` package is no dependency of the node."""


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime when it is first needed.

    Raises
    ------
    MissingPackageError
        It is not installed, or broken.
    """
    # read when it is imported: none of its events is to leave a hospital, or to be kept at home
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingPackageError(
            f"ONNX Runtime cannot be imported ({error}): pip install 'cbmir-node[cpu]', or "
            "'cbmir-node[gpu]' with an NVIDIA GPU"
        ) from error


def create_session(model: str | bytes, *, cuda: bool, threads: int = 0) -> Any:
    """Load a model, on CUDA if asked for and if it really loads there, else on the CPU.

    Parameters
    ----------
    model : str or bytes
        Path or content of an ONNX file.
    cuda : bool
        Try CUDA first; see what came of it in ``session.get_providers()``.
    threads : int
        CPU threads of one operator; 0 means all cores.

    Returns
    -------
    onnxruntime.InferenceSession

    Raises
    ------
    ModelError
        The file is no ONNX model that this runtime can run.
    """
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a failing CUDA provider is expected here and judged below
    if isinstance(model, bytes):
        # weights in another file would be looked for in the working directory, whatever that is
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.devnull
        )
    attempts = [[CPU]]
    if cuda and CUDA in runtime.get_available_providers():
        if hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()  # finds the CUDA libraries that pip installed
        attempts.insert(0, [CUDA, CPU])
    problem = ""
    for providers in attempts:
        try:
            return runtime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # the runtime's own classes differ from release to release
            problem = str(error)
    raise ModelError(f"ONNX Runtime cannot load the model: {problem}")


@dataclass(frozen=True)
class RuntimeReport:
    """What `doctor` shows of ONNX Runtime.

    Attributes
    ----------
    packages : dict of str to str
        Installed packages to their versions; two of them overwrite each other's files.
    version : str
        Of the module that is imported; empty when there is none.
    compiled : tuple of str
        Providers compiled in.
    loaded : tuple of str
        Providers a session got when it asked for all that the node uses.
    problem : str
        What is wrong and what to do; empty when nothing is.
    """

    packages: dict[str, str]
    version: str = ""
    compiled: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    problem: str = ""


def available_providers() -> RuntimeReport:
    """Report the installed packages and the providers that really load, on a tiny model."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        runtime = onnxruntime()
        loaded = tuple(create_session(_IDENTITY_MODEL, cuda=True).get_providers())
    except (MissingPackageError, ModelError) as error:
        return RuntimeReport(packages, problem=_problem(packages) or str(error))
    return RuntimeReport(
        packages,
        version=runtime.__version__,
        compiled=tuple(runtime.get_available_providers()),
        loaded=loaded,
        problem=_problem(packages),
    )


def _problem(packages: dict[str, str]) -> str:
    if len(packages) > 1:
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "uninstall both, then install one extra, 'cbmir-node[cpu]' or 'cbmir-node[gpu]'"
        )
    return ""
