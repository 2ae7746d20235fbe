import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.checkpoint import use_todays_decoder_names
from mmconvmae.registry import MODELS
from mmconvmae.utils.old_torch import register_load_state_dict_pre_hook

from ..layers import MultiScaleFusion, SinCosPositionEmbedding
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAEPretrainDecoder(BaseModule):
    """The decoder of ConvMAE pretraining: from visible tokens at three scales to the pixels of removed or all patches.

    :class:`MultiScaleFusion` brings the scales together. The latent is embedded, a mask token is put in at every
    removed block, a fixed sine-cosine position embedding is added, and transformer blocks, LayerNorm and a linear layer
    follow (paper, section 3.2). There is no class token.

    Args:
        encoder_dims (Sequence[int]): Width of each encoder stage. :class:`ConvMAE` reads this and the next three off
            its backbone.
        patch_sizes (Sequence[int]): Patch sizes of the encoder; their product is the edge of a patch in pixels.
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels.
        in_channels (int): Number of image channels.
        embed_dims (int): Width of the decoder. Defaults to 512.
        depth (int): Number of transformer blocks. Defaults to 8.
        num_heads (int): Number of attention heads. Defaults to 16.
        mlp_ratio (float): Hidden width of the MLPs, as a multiple of ``embed_dims``. Defaults to 4.
        multi_scale (bool): Whether stages 1 and 2 are used or stage 3 alone. Defaults to True.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``, or without a block.
    """

    def __init__(
        self,
        encoder_dims: Sequence[int],
        patch_sizes: Sequence[int],
        img_size: int | Sequence[int],
        in_channels: int,
        embed_dims: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4,
        multi_scale: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % num_heads:
            raise ValueError(
                f'The decoder width of {embed_dims} is not divisible by its {num_heads} heads; change `embed_dims` or '
                '`num_heads` of the neck.'
            )
        if depth < 1:
            raise ValueError(f'The decoder has {depth} blocks; set `depth` of the neck to 1 or more.')
        norm_cfg = dict(type='LN', eps=1e-6)
        patch_size = math.prod(patch_sizes)
        grid = tuple(edge // patch_size for edge in to_2tuple(img_size))
        self.fusion = MultiScaleFusion(encoder_dims, patch_sizes, multi_scale)
        self.decoder_embed = nn.Linear(encoder_dims[-1], embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.decoder_pos_embed = SinCosPositionEmbedding(grid, embed_dims)
        self.decoder_blocks = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, round(embed_dims * mlp_ratio), norm_cfg=norm_cfg)
            for _ in range(depth)
        )
        self.decoder_norm = build_norm_layer(norm_cfg, embed_dims)
        self.decoder_pred = nn.Linear(embed_dims, patch_size**2 * in_channels)
        register_load_state_dict_pre_hook(self, use_todays_decoder_names)

    def init_weights(self) -> None:
        """Initialise as MAE does (linear xavier-uniform without bias, mask token normal of 0.02), then ``init_cfg``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)
        super().init_weights()

    def forward(self, feats: tuple[Tensor, ...], mask: ConvMAEMask, all_patches: bool = False) -> Tensor:
        """Predict patches.

        Args:
            feats (tuple[Tensor]): What :class:`ConvMAEViT` gives for a mask: tiles of shape (B, N, t1, t1, C1) and
                (B, N, t2, t2, C2), and tokens of shape (B, N, C3).
            mask (ConvMAEMask): The mask.
            all_patches (bool): Whether to predict every patch, or only those of ``mask.ids_predict``, which is all
                that the loss needs. Defaults to False.

        Returns:
            Tensor: Patches of shape (B, M, patch_size² * in_channels) in the order of ``mask.ids_predict``, or
            (B, L, patch_size² * in_channels) row by row.
        """
        x = self.decoder_embed(self.fusion(feats))  # (B, N, D)
        num_removed = mask.ids_restore.shape[1] - x.shape[1]
        mask_tokens = self.mask_token.to(x.dtype).expand(len(x), num_removed, -1)
        x = torch.cat([x, mask_tokens], dim=1)
        x = x.take_along_dim(mask.ids_restore[..., None], 1)  # (B, L, D), row by row
        x = x + self.decoder_pos_embed(mask.grid)
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        last = self.decoder_blocks[-1]
        x = last(x) if all_patches else self._forward_some(last, x, mask.ids_predict)  # (B, M or L, D)
        return self.decoder_pred(self.decoder_norm(x))

    @staticmethod
    def _forward_some(block: TransformerEncoderLayer, x: Tensor, ids: Tensor) -> Tensor:
        """What a block gives for some tokens, which attend to all: the others are keys and values only.

        Args:
            block (TransformerEncoderLayer): The block, without layer scale.
            x (Tensor): Tokens of shape (B, L, D).
            ids (Tensor): The tokens wanted, shape (B, M), int64.

        Returns:
            Tensor: Shape (B, M, D).
        """
        attn, dims, ids = block.attn, block.embed_dims, ids[..., None]
        y = block.ln1(x)
        (weight_q, weight_kv), (bias_q, bias_kv) = (p.split((dims, 2 * dims)) for p in attn.qkv.parameters())
        q = F.linear(y.take_along_dim(ids, 1), weight_q, bias_q).unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
        k, v = F.linear(y, weight_kv, bias_kv).unflatten(2, (2, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, M, D / heads)
        x = x.take_along_dim(ids, 1) + attn.proj(y.transpose(1, 2).flatten(2))
        return block.ffn(block.ln2(x), identity=x)
