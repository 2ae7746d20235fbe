import math
from collections.abc import Sequence

import torch.nn as nn
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from .patch_embed import PatchConv2d


class MultiScaleFusion(BaseModule):
    """Brings the three scales of the masked encoder together into one latent (paper, section 3.2).

    Stages 1 and 2 are brought to stage 3's scale and width by patch convolutions and added to it, then LayerNorm. It
    is the part of the decoder that the authors' released pretraining checkpoints hold.

    Args:
        encoder_dims (Sequence[int]): Width of each encoder stage.
        patch_sizes (Sequence[int]): Patch sizes of the encoder.
        multi_scale (bool): Whether stages 1 and 2 are used (the paper's multi-scale decoder) or stage 3 alone.
            Defaults to True.
    """

    def __init__(self, encoder_dims: Sequence[int], patch_sizes: Sequence[int], multi_scale: bool = True) -> None:
        super().__init__()
        *early_dims, dims = encoder_dims
        self.projections = nn.ModuleList()
        if multi_scale:
            for i, width in enumerate(early_dims):
                tile_size = math.prod(patch_sizes[i + 1 :])
                self.projections.append(PatchConv2d(width, dims, tile_size))
        self.norm = build_norm_layer(dict(type='LN', eps=1e-6), dims)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Bring the scales together.

        Args:
            feats (tuple[Tensor]): What :class:`ConvMAEViT` gives for a mask: tiles of shape (B, N, t1, t1, C1) and
                (B, N, t2, t2, C2), and tokens of shape (B, N, C3). Of clips each has a time axis after N.

        Returns:
            Tensor: Latent of the visible blocks, shape (B, N, C3), or (B, N, T, C3).
        """
        x = feats[-1]
        for projection, tiles in zip(self.projections, feats):
            x = x + projection(tiles).flatten(-4, -2)  # (B, N, [T,] 1, 1, C3) -> (B, N, [T,] C3)
        return self.norm(x)
