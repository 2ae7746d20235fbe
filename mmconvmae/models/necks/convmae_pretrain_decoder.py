import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.registry import MODELS

from ..layers import PatchConv2d, PositionEmbedding, gather_tiles
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class MultiScaleFusion(BaseModule):
    """Brings the three scales of the masked encoder together into one latent (paper, section 3.2).

    Stages 1 and 2 are brought to stage 3's scale and width by patch convolutions and added to it, then LayerNorm. It
    is the part of the decoder that the authors' released pretraining checkpoints hold.

    Args:
        in_channels (Sequence[int]): Width of each encoder stage. Defaults to (256, 384, 768).
        patch_sizes (Sequence[int]): Patch sizes of the encoder. Defaults to (4, 2, 2).
        multi_scale (bool): Whether stages 1 and 2 are used (the paper's multi-scale decoder) or stage 3 alone.
            Defaults to True.
        norm_cfg (dict): Norm layer. Defaults to ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 384, 768),
        patch_sizes: Sequence[int] = (4, 2, 2),
        multi_scale: bool = True,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.projections = nn.ModuleList()
        if multi_scale:
            for i in range(2):
                tile_size = math.prod(patch_sizes[i + 1 :])
                self.projections.append(PatchConv2d(in_channels[i], in_channels[2], tile_size))
        self.norm = build_norm_layer(norm_cfg, in_channels[2])

    def fuse(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Bring the scales together.

        Args:
            feats (tuple[Tensor]): What :class:`ConvMAEViT` gives for a mask: tiles of shape (B, N, t1, t1, C1) and
                (B, N, t2, t2, C2), and tokens of shape (B, N, C3).

        Returns:
            Tensor: Latent of the visible blocks, shape (B, N, C3).
        """
        x = feats[-1]
        for projection, tiles in zip(self.projections, feats):
            x = x + projection(tiles).flatten(1, 3)  # (B, N, 1, 1, C3) -> (B, N, C3)
        return self.norm(x)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """As :meth:`fuse`."""
        return self.fuse(feats)


@MODELS.register_module()
class ConvMAEPretrainDecoder(MultiScaleFusion):
    """The decoder of ConvMAE pretraining: from visible tokens at three scales to the pixels of every patch.

    The fused latent is embedded, a mask token is put in at every removed block, a fixed sine-cosine position embedding
    is added, and transformer blocks, LayerNorm and a linear layer follow (paper, section 3.2). There is no class token.

    Args:
        in_channels (Sequence[int]): Width of each encoder stage. Defaults to (256, 384, 768).
        patch_sizes (Sequence[int]): Patch sizes of the encoder; their product is the edge of a patch in pixels.
            Defaults to (4, 2, 2).
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels. Defaults to 224.
        in_chans (int): Number of image channels. Defaults to 3.
        embed_dims (int): Width of the decoder. Defaults to 512.
        depth (int): Number of transformer blocks. Defaults to 8.
        num_heads (int): Number of attention heads. Defaults to 16.
        mlp_ratio (float): Hidden width of the MLPs, as a multiple of ``embed_dims``. Defaults to 4.
        multi_scale (bool): Whether stages 1 and 2 are used or stage 3 alone. Defaults to True.
        norm_cfg (dict): Norm layer. Defaults to ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``, or without a block.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 384, 768),
        patch_sizes: Sequence[int] = (4, 2, 2),
        img_size: int | Sequence[int] = 224,
        in_chans: int = 3,
        embed_dims: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4,
        multi_scale: bool = True,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, patch_sizes, multi_scale, norm_cfg, init_cfg)
        if embed_dims % num_heads:
            raise ValueError(
                f'The decoder width of {embed_dims} is not divisible by its {num_heads} heads; change `embed_dims` or '
                '`num_heads` of the neck.'
            )
        if depth < 1:
            raise ValueError(f'The decoder has {depth} blocks; set `depth` of the neck to 1 or more.')
        patch_size = math.prod(patch_sizes)
        self.decoder_embed = nn.Linear(in_channels[2], embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        grid = tuple(edge // patch_size for edge in to_2tuple(img_size))
        self.decoder_pos_embed = PositionEmbedding(grid, embed_dims, learnable=False)
        self.decoder_blocks = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, round(embed_dims * mlp_ratio), norm_cfg=norm_cfg)
            for _ in range(depth)
        )
        self.decoder_norm = build_norm_layer(norm_cfg, embed_dims)
        self.decoder_pred = nn.Linear(embed_dims, patch_size**2 * in_chans)

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
            Tensor: Patches of shape (B, M, patch_size² * in_chans) in the order of ``mask.ids_predict``, or
            (B, L, patch_size² * in_chans) row by row.
        """
        x = self.decoder_embed(self.fuse(feats))  # (B, N, D)
        num_removed = mask.ids_restore.shape[1] - x.shape[1]
        mask_tokens = self.mask_token.to(x.dtype).expand(len(x), num_removed, -1)
        x = gather_tiles(torch.cat([x, mask_tokens], dim=1), mask.ids_restore)  # (B, L, D), row by row
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
        attn, dims = block.attn, block.embed_dims
        y = block.ln1(x)
        (weight_q, weight_kv), (bias_q, bias_kv) = (p.split((dims, 2 * dims)) for p in attn.qkv.parameters())
        q = F.linear(gather_tiles(y, ids), weight_q, bias_q).unflatten(2, (attn.num_heads, -1)).transpose(1, 2)
        k, v = F.linear(y, weight_kv, bias_kv).unflatten(2, (2, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, M, D / heads)
        x = gather_tiles(x, ids) + attn.proj(y.transpose(1, 2).flatten(2))
        return block.ffn(block.ln2(x), identity=x)
