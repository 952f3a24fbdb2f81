"""Where the files that ship beside the code are: models, migrations, example configurations."""

from __future__ import annotations

from pathlib import Path

from cbmir_node.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """Return the path of a shipped file or folder such as ``sql`` or ``onnx/model.onnx``.

    An installed wheel carries them inside the package, a source checkout beside it.
    """
    for root in (_PACKAGE / "_resources", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise ConfigurationError(f"the installation is incomplete: {name} is missing; install it again")
