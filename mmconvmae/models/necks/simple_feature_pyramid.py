from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor

from mmconvmae.registry import MODELS


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """The pyramid of ViTDet: every level is made from the one map of stride 16, with no connections between levels.

    See section 3 of `Exploring Plain Vision Transformer Backbones for Object Detection
    <https://arxiv.org/abs/2203.16527>`_. The map is brought to strides 4, 8, 16 and 32 by transposed convolutions and
    max-pooling; a 1 × 1 and a 3 × 3 convolution follow at each, both with a norm and without activation.

    Args:
        in_channels (int): Channels of the map, divisible by 4.
        out_channels (int): Channels of each level. Defaults to 256.
        num_outs (int): Number of levels, from stride 4 on; those beyond four take every second position of the one
            before, as in mmdet's FPN. Defaults to 5.
        norm_cfg (dict): Norm layer over the channels of each position. Defaults to
            ``dict(type='mmpretrain.LN2d', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If 4 does not divide ``in_channels``, or with fewer than four levels.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import SimpleFeaturePyramid
        >>> neck = SimpleFeaturePyramid(in_channels=192, out_channels=64)
        >>> [tuple(level.shape[2:]) for level in neck([torch.randn(1, 192, 8, 12)])]
        [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        num_outs: int = 5,
        norm_cfg: dict = dict(type='mmpretrain.LN2d', eps=1e-6),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if in_channels % 4:
            raise ValueError(f'`in_channels` is {in_channels}; the level of stride 4 needs a multiple of 4.')
        if num_outs < 4:
            raise ValueError(f'`num_outs` is {num_outs}; the pyramid has 4 levels or more.')
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        to_stride_4 = (
            nn.ConvTranspose2d(in_channels, half, 2, stride=2),
            build_norm_layer(norm_cfg, half)[1],
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        to_stride_8 = (nn.ConvTranspose2d(in_channels, half, 2, stride=2),)
        to_stride_32 = (nn.MaxPool2d(2),)
        self.levels = nn.ModuleList(
            nn.Sequential(
                *rescale,
                ConvModule(channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None),
                ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None),
            )
            for rescale, channels in (
                (to_stride_4, quarter),
                (to_stride_8, half),
                ((), in_channels),
                (to_stride_32, in_channels),
            )
        )

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            feats (Sequence[Tensor]): Maps of a backbone. The last, of stride 16 and shape (B, in_channels, H, W) with
                H and W of 2 or more, is used.

        Returns:
            tuple[Tensor]: ``num_outs`` maps of shape (B, out_channels, H_i, W_i), from stride 4 on. H_i is 4 H, 2 H, H
            and H / 2 rounded down, and then half of the one before rounded up; W_i likewise.
        """
        outs = [level(feats[-1]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
