"""MAE with the decoder of CrossMAE (arXiv 2401.14391), to measure against and for nothing else.

The queries of its blocks are mask tokens at the predicted patches, which look at the visible tokens and not at each
other. It is the decoder alone: the learned mixture of encoder layers, a small part of the cost, is left out.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models import MAE, build_2d_sincos_position_embedding
from torch import Tensor

from mmconvmae.registry import MODELS


class CrossBlock(nn.Module):
    """Cross attention and MLP, both with a LayerNorm before and a residual."""

    def __init__(self, dims: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dims, eps=1e-6), nn.LayerNorm(dims, eps=1e-6)
        self.attn = nn.MultiheadAttention(dims, num_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dims, 4 * dims), nn.GELU(), nn.Linear(4 * dims, dims))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), visible, visible, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


@MODELS.register_module()
class CrossMAE(MAE):
    """MAE, of whose neck the embedding of the encoder's tokens, the mask token and the last layers are used.

    Args:
        predict_ratio (float): Share of all patches that is predicted.
        depth (int): Number of blocks.
        dims (int): Their width.
        num_heads (int): Their heads.
        **kwargs: Arguments of mmpretrain's ``MAE``; the neck has no blocks.
    """

    def __init__(self, predict_ratio: float = 0.25, depth: int = 12, dims: int = 512, num_heads: int = 16, **kwargs):
        super().__init__(**kwargs)
        self.predict_ratio = predict_ratio
        self.blocks = nn.ModuleList(CrossBlock(dims, num_heads) for _ in range(depth))
        pos_embed = build_2d_sincos_position_embedding(self.backbone.patch_resolution[0], dims)
        self.register_buffer('pos_embed', pos_embed)  # (1, L, dims)

    def loss(self, inputs: Tensor, data_samples: None = None, **kwargs) -> dict[str, Tensor]:
        """Compute the pretraining loss of images of shape (B, 3, H, W)."""
        latent, mask, ids_restore = self.backbone(inputs)
        num_kept = latent.shape[1] - 1  # beside the class token
        num_predicted = round(self.predict_ratio * mask.shape[1])
        ids = torch.argsort(ids_restore)[:, num_kept : num_kept + num_predicted, None]  # (B, M, 1)
        visible = self.neck.decoder_embed(latent)
        x = self.neck.mask_token + self.pos_embed.take_along_dim(ids, 1)
        for block in self.blocks:
            x = block(x, visible)
        pred = self.neck.decoder_pred(self.neck.decoder_norm(x))
        return dict(loss=F.mse_loss(pred, self.head.construct_target(inputs).take_along_dim(ids, 1)))
