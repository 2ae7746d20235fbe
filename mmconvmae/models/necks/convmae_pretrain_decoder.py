import math
from collections.abc import Sequence
from numbers import Real

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.checkpoint import use_todays_decoder_names
from mmconvmae.registry import MODELS
from mmconvmae.utils import check_choice, check_integer, check_number
from mmconvmae.utils.old_torch import register_load_state_dict_pre_hook

from ..layers import MultiScaleFusion, SinCosPositionEmbedding, take_blocks
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAEPretrainDecoder(BaseModule):
    """The decoder of ConvMAE pretraining: from visible tokens at three scales to the pixels of removed or all patches.

    :class:`MultiScaleFusion` brings the scales together. The latent is embedded, a mask token is put in at every
    removed block that is to be predicted, a fixed sine-cosine position embedding is added, and transformer blocks,
    LayerNorm and a linear layer follow (paper, section 3.2). There is no class token.

    Of clips all tokens attend to all, over space and time, and a patch has several frames.

    Args:
        encoder_dims (Sequence[int]): Width of each encoder stage. :class:`ConvMAE` reads this, the next three and the
            two of time off its backbone.
        patch_sizes (Sequence[int]): Patch sizes of the encoder; their product is the edge of a patch in pixels.
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels.
        in_channels (int): Number of image channels.
        embed_dims (int): Width of the decoder. Defaults to 512.
        depth (int): Number of transformer blocks. Defaults to 8.
        num_heads (int): Number of attention heads. Defaults to 16.
        mlp_ratio (float): Hidden width of the MLPs, as a multiple of ``embed_dims``. Defaults to 4.
        multi_scale (bool): Whether stages 1 and 2 are used or stage 3 alone. Defaults to True.
        predict_ratio (float): Share of the removed patches that a training step predicts, above 0 and at most 1; the
            others enter neither decoder nor loss (decoder masking, `VideoMAE V2 <https://arxiv.org/abs/2303.16727>`_).
            :meth:`ConvMAE.loss` hands it to the mask, and pictures have all patches whatever it is. Defaults to 1, as
            in the paper.
        num_frames (int, optional): Frames of the usual clip. Defaults to None, for images.
        tubelet_size (int): Frames of a patch. Defaults to 1.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``, without a block, or if ``predict_ratio`` is none.
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
        predict_ratio: float = 1,
        num_frames: int | None = None,
        tubelet_size: int = 1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in dict(embed_dims=embed_dims, depth=depth, num_heads=num_heads).items():
            check_integer(f'{name} of the neck', value)
        check_number('mlp_ratio of the neck', mlp_ratio, 1e-6)
        check_choice('multi_scale of the neck', multi_scale, (False, True))
        if embed_dims % num_heads:
            raise ValueError(
                f'The decoder width of {embed_dims} is not divisible by its {num_heads} heads; change `embed_dims` or '
                '`num_heads` of the neck.'
            )
        if not isinstance(predict_ratio, Real) or not 0 < predict_ratio <= 1:
            raise ValueError(f'`predict_ratio` of the neck is {predict_ratio!r}; it must be above 0 and at most 1.')
        self.predict_ratio = predict_ratio
        norm_cfg = dict(type='LN', eps=1e-6)
        patch_size = math.prod(patch_sizes)
        grid = tuple(edge // patch_size for edge in to_2tuple(img_size))
        if num_frames is not None:
            grid = (num_frames // tubelet_size, *grid)
        self.fusion = MultiScaleFusion(encoder_dims, patch_sizes, multi_scale)
        self.decoder_embed = nn.Linear(encoder_dims[-1], embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.decoder_pos_embed = SinCosPositionEmbedding(grid, embed_dims)
        self.decoder_blocks = nn.ModuleList(
            TransformerEncoderLayer(embed_dims, num_heads, round(embed_dims * mlp_ratio), norm_cfg=norm_cfg)
            for _ in range(depth)
        )
        self.decoder_norm = build_norm_layer(norm_cfg, embed_dims)
        self.decoder_pred = nn.Linear(embed_dims, patch_size**2 * tubelet_size * in_channels)
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
                (B, N, t2, t2, C2), and tokens of shape (B, N, C3). Of clips each has a time axis after N.
            mask (ConvMAEMask): The mask. Removed blocks that are not in its ``ids_predict`` do not enter the decoder.
            all_patches (bool): Whether to predict every patch, or only those of ``mask.ids_predict``, which is all
                that the loss needs. Defaults to False.

        Returns:
            Tensor: Patches of shape (B, M, patch_size² * in_channels) in the order of ``mask.ids_predict``, or
            (B, L, patch_size² * in_channels) row by row. Of clips (B, M or L, T, patch_size² * tubelet_size *
            in_channels).
        """
        x = self.decoder_embed(self.fusion(feats))  # (B, N, [T,] D)
        slots = x.shape[2:-1]  # (T,) of clips, () of images
        num_kept, num_blocks = x.shape[1], mask.ids_restore.shape[1]
        pos_embed = self.decoder_pos_embed((*slots, *mask.grid)).movedim(-2, 1)  # (1, L, [T,] D)
        mask_tokens = self.mask_token.to(x.dtype).expand(len(x), num_blocks - num_kept, *slots, -1)
        if all_patches or mask.predicts_all:
            x = torch.cat([x, mask_tokens], dim=1)
            x = take_blocks(x, mask.ids_restore)  # (B, L, [T,] D), row by row
            wanted = mask.ids_predict
        else:
            ids = torch.cat([mask.ids_keep, mask.ids_predict], dim=1)
            x = torch.cat([x, mask_tokens[:, : mask.ids_predict.shape[1]]], dim=1)  # (B, N + M, [T,] D), kept first
            pos_embed = take_blocks(pos_embed, ids)
            wanted = torch.arange(num_kept, x.shape[1], device=x.device).expand(len(x), -1)
        x = (x + pos_embed).flatten(1, -2)  # (B, L or N + M, D), of clips T times as many, tube by tube
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        last = self.decoder_blocks[-1]
        if all_patches:
            x = last(x)
        else:
            num_slots = math.prod(slots)
            wanted = wanted[..., None] * num_slots + torch.arange(num_slots, device=x.device)  # (B, M, T or 1)
            x = self._forward_some(last, x, wanted.flatten(1))  # (B, M, D), of clips T times as many
        return self.decoder_pred(self.decoder_norm(x)).unflatten(1, (-1, *slots))

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
