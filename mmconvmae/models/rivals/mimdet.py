import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer, VisionTransformer
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.registry import MODELS
from mmconvmae.utils import check_choice, check_integer, check_number
from mmconvmae.utils.old_torch import register_load_state_dict_pre_hook

from ..layers import GridEmbedding, sincos_position_embedding, take_blocks

# What a parameter that is MAE's is called here, and in mmpretrain's pretraining.
_MAE_NAMES = (
    (r'((layers|ln1)\..+)', r'backbone.\1'),
    (r'pos_embed\.weight', 'backbone.pos_embed'),
    (r'decoder_pos_embed\.weight', 'neck.decoder_pos_embed'),
    (r'decoder_norm\.(.+)', r'neck.ln1.\1'),
    (r'(decoder_.+)', r'neck.\1'),
)


@MODELS.register_module()
class MIMDet(BaseModule):
    """MIMDet, a rival in detection: MAE's encoder and decoder behind a convolutional stem.

    The stem gives the levels of strides 4 and 8 and the tokens of stride 16. In training the encoder is given a random
    part of them; the decoder, with the stem's own features where mask tokens are in pretraining, makes the map of
    stride 16, and a max-pool that of stride 32. See section 3 of `Unleashing Vanilla Vision Transformer with Masked
    Image Modeling for Object Detection <https://arxiv.org/abs/2204.02964>`_.

    Images may have any size: each stage of the stem, and the max-pool, halves it and rounds up.

    A checkpoint of mmpretrain's MAE pretraining, in an ``init_cfg`` without ``prefix``, fills encoder and decoder; the
    stem is new. With mmconvmae's ``LayerDecayOptimWrapperConstructor`` and a ``layer_decay_rate`` of 0.5, the encoder
    learns at a quarter and the stem at half of the rate of everything else, as in the released recipe.

    Args:
        arch (str | dict): The encoder, a name of mmpretrain's ``VisionTransformer`` or a dict with its ``embed_dims``,
            ``num_layers``, ``num_heads`` and ``feedforward_channels``. Defaults to 'base'.
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels; the position embeddings, which
            are fixed, are kept for it and resized for others. Defaults to 224.
        sample_ratio (float): Share of the tokens that the encoder is given in training, above 0 and at most 1; in
            evaluation it is given all. Defaults to 0.5.
        decoder_dims (int): Width of the decoder. Defaults to 512.
        decoder_depth (int): Number of the decoder's blocks. Defaults to 4.
        decoder_num_heads (int): Number of the decoder's attention heads. Its MLPs are four times as wide as the
            decoder. Defaults to 16.
        drop_path_rate (float): Stochastic depth rate of the encoder's last block; it rises linearly from 0, and is 0 in
            the decoder. Defaults to 0.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If an argument is not one of the above, or if a checkpoint of MAE has no decoder or is of another
            architecture.
    """

    stride = 16

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        sample_ratio: float = 0.5,
        decoder_dims: int = 512,
        decoder_depth: int = 4,
        decoder_num_heads: int = 16,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not isinstance(arch, dict):
            check_choice('arch', arch, list(VisionTransformer.arch_zoo))
            arch = VisionTransformer.arch_zoo[arch]
        sizes = dict(decoder_dims=decoder_dims, decoder_depth=decoder_depth, decoder_num_heads=decoder_num_heads)
        for name, value in sizes.items():
            check_integer(name, value)
        if decoder_dims % decoder_num_heads:
            raise ValueError(
                f'The decoder width of {decoder_dims} is not divisible by its {decoder_num_heads} heads; change '
                '`decoder_dims` or `decoder_num_heads`.'
            )
        check_number('sample_ratio', sample_ratio, 1e-6, 1)
        self.sample_ratio = sample_ratio
        width, depth = arch['embed_dims'], arch['num_layers']
        norm_cfg = dict(type='LN', eps=1e-5)  # as released; MAE itself has 1e-6
        grid = tuple(-(-edge // self.stride) for edge in to_2tuple(img_size))

        self.stem = self._build_stem(width)
        self.pos_embed = self._build_pos_embed(grid, width)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(
                width, arch['num_heads'], arch['feedforward_channels'], drop_path_rate=rate, norm_cfg=norm_cfg
            )
            for rate in np.linspace(0, drop_path_rate, depth).tolist()
        )
        self.ln1 = build_norm_layer(norm_cfg, width)

        self.decoder_embed = nn.Linear(width, decoder_dims)
        self.stem_embed = nn.Linear(width, decoder_dims)
        self.decoder_pos_embed = self._build_pos_embed(grid, decoder_dims)
        self.decoder_blocks = nn.ModuleList(
            TransformerEncoderLayer(decoder_dims, decoder_num_heads, 4 * decoder_dims, norm_cfg=norm_cfg)
            for _ in range(decoder_depth)
        )
        self.decoder_norm = build_norm_layer(norm_cfg, decoder_dims)
        register_load_state_dict_pre_hook(self, _take_from_mae)

    @staticmethod
    def _build_stem(width: int) -> nn.ModuleList:
        """Four stages of a convolution of stride 2, norm and GELU; a last convolution gives the tokens."""
        widths = (3, width // 8, width // 4, width // 2, width)
        stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after, eps=1e-6),
                nn.GELU(),
            )
            for before, after in pairwise(widths)
        )
        stages[-1].append(nn.Conv2d(width, width, 1))
        return stages

    @staticmethod
    def _build_pos_embed(grid: tuple[int, int], width: int) -> GridEmbedding:
        """That of the usual grid. It is resized for others, as the released code has it, so that the positions of a
        large image are those between which pretraining learned to tell."""
        pos_embed = GridEmbedding(sincos_position_embedding(grid, width), grid)
        pos_embed.weight.requires_grad_(False)
        return pos_embed

    def init_weights(self) -> None:
        """Initialise as MAE does, linear layers xavier-uniform without bias, then apply ``init_cfg``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        super().init_weights()

    def sample(self, images: Tensor) -> Tensor:
        """Draw the tokens that the encoder is given in training.

        Tokens of padding come last, so that they are drawn only where an image has not enough of its own. Padding is
        where all pixels of a patch are 0, which a data preprocessor pads with after normalising.

        Args:
            images (Tensor): Shape (B, 3, H, W).

        Returns:
            Tensor: Places of tokens, row by row, in random order; shape (B, N), int64, N the share ``sample_ratio`` of
            all, rounded down.
        """
        largest = images.abs().amax(1, keepdim=True)
        is_padding = F.max_pool2d(largest, self.stride, ceil_mode=True).flatten(1) == 0  # (B, L)
        noise = torch.rand(is_padding.shape, device=images.device) + is_padding
        return noise.argsort(1)[:, : int(noise.shape[1] * self.sample_ratio)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            x (Tensor): Images of shape (B, 3, H, W).

        Returns:
            tuple[Tensor]: Four maps, of strides 4, 8, 16 and 32: shape (B, C, H / stride, W / stride), rounded up, with
            the widths of the stem's second and third stage, ``embed_dims / 4`` and ``embed_dims / 2``, and twice that
            of the decoder.
        """
        ids = self.sample(x) if self.training else None
        levels = []
        for stage in self.stem:
            x = stage(x)
            levels.append(x)
        grid = tuple(x.shape[2:])
        stem_tokens = x.flatten(2).transpose(1, 2)  # (B, L, C)

        tokens = stem_tokens + self.pos_embed(grid)
        if ids is not None:
            tokens = take_blocks(tokens, ids)  # (B, N, C)
        for block in self.layers:
            tokens = block(tokens)
        tokens = self.decoder_embed(self.ln1(tokens))
        if ids is not None:
            places = ids[..., None].expand_as(tokens)
            tokens = self.stem_embed(stem_tokens).scatter(1, places, tokens)  # (B, L, D)

        tokens = tokens + self.decoder_pos_embed(grid)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        x = self.decoder_norm(tokens).transpose(1, 2).unflatten(2, grid).contiguous()  # (B, D, H / 16, W / 16)
        return levels[1], levels[2], x, F.max_pool2d(x, 2, ceil_mode=True)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay: encoder, stem, and all else, the decoder included.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): What the names of the backbone's parameters start with. Defaults to ''.

        Returns:
            tuple[int, int]: The layer, from 0, and the number of layers.
        """
        parts = (('layers.', 'ln1.'), ('stem.',))
        for depth, names in enumerate(parts):
            if param_name.startswith(tuple(prefix + name for name in names)):
                return depth, len(parts) + 1
        return len(parts), len(parts) + 1


def _take_from_mae(backbone: MIMDet, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
    """Rename what is about to be loaded if it is of MAE, and refuse it if encoder and decoder are not all there."""
    if f'{prefix}backbone.layers.0.ln1.weight' not in state_dict:
        return
    for name, own in backbone.state_dict().items():
        matches = ((re.fullmatch(ours, name), theirs) for ours, theirs in _MAE_NAMES)
        source = next((prefix + match.expand(theirs) for match, theirs in matches if match), None)
        if source is None:  # of the stem, or of what embeds it
            continue
        if source not in state_dict:
            raise ValueError(
                f'The checkpoint is of MAE and {source!r} is missing in it; MIMDet starts from a whole one of '
                'pretraining, encoder and decoder, which has as many blocks as it or more.'
            )
        value = state_dict.pop(source)
        is_embedding = name.endswith('pos_embed.weight')
        if is_embedding:
            value = value[:, 1:]  # the first is the class token's; another grid is resized
        if value.shape[-1] != own.shape[-1] if is_embedding else value.shape != own.shape:
            raise ValueError(
                f'The checkpoint is of another architecture: {source} is {tuple(value.shape)} in it and '
                f'{tuple(own.shape)} in this model; set `arch` and `decoder_dims` to those of the checkpoint.'
            )
        state_dict[prefix + name] = value
