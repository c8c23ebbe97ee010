"""The networks by name, all MONAI's; ``width`` makes a small one of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ospor_batch.errors import StudyError
from ospor_batch.models.trainable import Parameters

PUBLISHED_WIDTH = 64  # first features of DenseNet-121 and ResNet (Huang 2017, He 2016)


def network_of(parameters: Parameters, *, n_channels: int, n_outputs: int, spatial_dims: int = 2) -> nn.Module:
    """Build the network that ``parameters.network`` names; StudyError when there is none of that name.

    width: features after the first layer; 64 is the published one. dropout: of the DenseNets.
    """
    name = str(parameters["network"])
    if name not in NETWORKS:
        raise StudyError(f"recipes.parameters.network is {name!r}, expected one of {', '.join(sorted(NETWORKS))}")
    width = int(str(parameters.get("width", PUBLISHED_WIDTH)))
    if width < 2 or width % 2:
        raise StudyError(f"recipes.parameters.width is {width}, expected an even number of 2 or more")
    shape = {"spatial_dims": spatial_dims, "n_channels": n_channels, "n_outputs": n_outputs, "width": width}
    return NETWORKS[name](**shape, dropout=float(str(parameters.get("dropout", 0.0))))


def _densenet(blocks: tuple[int, ...]) -> Callable[..., nn.Module]:
    def build(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:
        from monai.networks.nets import DenseNet

        # growth is half the first width in every published DenseNet
        return DenseNet(
            spatial_dims=spatial_dims, in_channels=n_channels, out_channels=n_outputs, init_features=width,
            growth_rate=width // 2, block_config=blocks, dropout_prob=dropout,
        )  # fmt: skip

    return build


def _resnet(block: str | type[nn.Module], layers: list[int]) -> Callable[..., nn.Module]:
    def build(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:  # noqa: ARG001
        from monai.networks.nets import ResNet

        return ResNet(
            block=block, layers=layers, block_inplanes=[width, 2 * width, 4 * width, 8 * width], spatial_dims=spatial_dims,
            n_input_channels=n_channels, num_classes=n_outputs, conv1_t_size=7, conv1_t_stride=2,
        )  # fmt: skip

    return build


def _unet(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=spatial_dims, in_channels=n_channels, out_channels=n_outputs,
        channels=(width, 2 * width, 4 * width, 8 * width), strides=(2, 2, 2), num_res_units=2, dropout=dropout,
    )  # fmt: skip


def _efficientnet(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:
    from monai.networks.nets import EfficientNet

    return EfficientNet(
        blocks_args_str=EFFICIENTNET_B0, spatial_dims=spatial_dims, in_channels=n_channels, num_classes=n_outputs,
        width_coefficient=width / PUBLISHED_WIDTH, dropout_rate=dropout, image_size=224,
    )  # fmt: skip


def _seresnet(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:
    """ResNet-18 whose blocks weigh their channels (squeeze and excitation, Hu 2018, reduction 16)."""
    from monai.networks.blocks import ChannelSELayer
    from monai.networks.nets.resnet import ResNetBlock

    class SqueezedBlock(ResNetBlock):  # type: ignore[misc]
        def __init__(self, in_planes: int, planes: int, **more: Any) -> None:
            super().__init__(in_planes, planes, **more)
            self.bn2 = nn.Sequential(self.bn2, ChannelSELayer(spatial_dims, planes, r=min(16, planes)))  # type: ignore[has-type]

    return _resnet(SqueezedBlock, [2, 2, 2, 2])(
        spatial_dims=spatial_dims, n_channels=n_channels, n_outputs=n_outputs, width=width, dropout=dropout
    )


def _vgg(*, spatial_dims: int, n_channels: int, n_outputs: int, width: int, dropout: float) -> nn.Module:
    """VGG-11 with batch normalisation; mean pooling and one layer stand for its three dense ones."""
    from monai.networks.blocks import Convolution
    from monai.networks.layers import Pool

    widths = [width, 2 * width, *(4 * width,) * 2, *(8 * width,) * 4]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(zip([n_channels, *widths], widths, strict=False)):
        layers.append(Convolution(spatial_dims, before, after, norm="batch", act="relu", adn_ordering="NA"))
        if place in {0, 1, 3, 5, 7}:  # Simonyan 2015, table 1, column A
            layers.append(Pool["max", spatial_dims](2))
    pool = Pool["adaptiveavg", spatial_dims](1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * width, n_outputs))


# Tan and Le 2019, table 1
EFFICIENTNET_B0 = [
    "r1_k3_s11_e1_i32_o16_se0.25", "r2_k3_s22_e6_i16_o24_se0.25", "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25", "r3_k5_s11_e6_i80_o112_se0.25", "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
]  # fmt: skip
NETWORKS: dict[str, Callable[..., Any]] = {
    "densenet121": _densenet((6, 12, 24, 16)),  # Huang 2017, table 1
    "densenet_small": _densenet((2, 4, 4)),  # for generated studies and tests
    "resnet50": _resnet("bottleneck", [3, 4, 6, 3]),  # He 2016, table 1
    "resnet18": _resnet("basic", [2, 2, 2, 2]),
    "seresnet18": _seresnet,
    "efficientnet_b0": _efficientnet,
    "vgg11": _vgg,
    "unet": _unet,
}
