import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmconvmae.registry import MODELS

from ..layers import (
    ConvBlock,
    DecomposedRelativePosition,
    GridEmbedding,
    PatchEmbed,
    PositionEmbedding,
    RelativePositionBias,
    TileIndex,
    TransformerBlock,
    unpadded_sizes,
)


@MODELS.register_module()
class ConvViT(BaseBackbone):
    """ConvViT, the hybrid convolution-transformer backbone of ConvMAE.

    Two stages of convolution blocks and one of transformer blocks, at strides 4, 8 and 16 by default (section 3.1 of
    `MCMAE: Masked Convolution Meets Masked Autoencoders <https://arxiv.org/abs/2205.03892>`_). Inputs may have any
    height and width that the total stride divides.

    Args:
        arch (str | dict): 'tiny' (for a CPU; not in the paper), 'small', 'base', 'large' or 'huge', or a dict with

            - **embed_dims** (Sequence[int]): Width of each stage.
            - **depths** (Sequence[int]): Number of blocks of each stage.
            - **num_heads** (int): Number of attention heads of stage 3.
            - **mlp_ratios** (Sequence[float]): Hidden width of each stage's MLP, as a multiple of its width.

            Defaults to 'base'.
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels; the position embedding is made
            for it and resized for others. Defaults to 224.
        patch_sizes (Sequence[int]): Edge of the patches that open each stage, in positions of the stage before. Their
            product is the total stride. Defaults to (4, 2, 2).
        in_channels (int): Number of image channels. Defaults to 3.
        kernel_size (int): Edge of the depthwise kernels, odd. Defaults to 5.
        window_size (int): Edge of the windows that attention of stage 3 is confined to, in tokens; windows at the lower
            and right edge are as large as what is left. Defaults to 0: all blocks attend globally.
        global_attn_indexes (Sequence[int]): Blocks of stage 3, from 0 or negative from the end, that attend globally
            although there are windows. Defaults to ().
        rel_pos (str, optional): Relative positions that attention knows of.

            - ``'shared'``: a table of biases that all windowed blocks share and another for all global ones.
            - ``'per_block'``: a table of biases for each block.
            - ``'decomposed'``: vectors for rows and for columns in each block, as in ViTDet.

            Tables of global blocks are made for ``img_size`` and resized for others. Defaults to None.
        layer_scale_init_value (float): Initial value of a learnable scale for each channel of both residual branches in
            stage 3; 0 for none. Defaults to 0.
        fourth_level (str, optional): A level of twice the total stride after stage 3.

            - ``'max_pool'``: the largest of 2 x 2 positions, as for detection.
            - ``'conv'``: 3 x 3 convolution of stride 2 without padding, norm and GELU, as for segmentation.

            Defaults to None.
        fourth_level_norm_cfg (dict): Norm layer of ``'conv'``. Defaults to ``dict(type='SyncBN')``.
        out_indices (int | Sequence[int]): Stages, from 0 to 2 or negative from the end, whose outputs are returned; 3
            is the fourth level. Defaults to -1, the last.
        out_type (str): What is returned of each stage.

            - ``'raw'``: tokens of shape (B, L, C).
            - ``'featmap'``: a map of shape (B, C, H, W).
            - ``'avg_featmap'``: the mean over positions and then LayerNorm, shape (B, C).

            There is no class token. Defaults to 'avg_featmap'.
        drop_path_rate (float): Stochastic depth rate of the last block; it rises linearly from 0 over the blocks of
            all stages. Defaults to 0.
        norm_cfg (dict): Norm layer of stage 3 and of ``'avg_featmap'``. Defaults to ``dict(type='LN', eps=1e-6)``.
        frozen_stages (int): Number of stages, from the first, that stay as they are: no gradient, always in eval mode.
            With 3 everything is frozen. Defaults to -1, none.
        pad_value (float, optional): The value that a data preprocessor pads batches with, on the right and below. Then
            the padding of each image is not computed, its features are 0 there and elsewhere those that the image has
            alone, and images are run together only where they are of one size. Defaults to None: padding is a part of
            the image, as in the released code.
        with_cp (bool): Whether to recompute each block in the backward pass to save memory (gradient checkpointing).
            Defaults to False.
        interpolate_mode (str): How the position embedding is resized. Defaults to 'bicubic'.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If an argument is not one of the above, or if a loaded checkpoint is of another architecture.
    """

    arch_zoo = {
        'tiny': dict(embed_dims=(48, 96, 192), depths=(2, 2, 6), num_heads=6, mlp_ratios=(4, 4, 4)),
        'small': dict(embed_dims=(128, 256, 384), depths=(2, 2, 11), num_heads=6, mlp_ratios=(4, 4, 4)),
        'base': dict(embed_dims=(256, 384, 768), depths=(2, 2, 11), num_heads=12, mlp_ratios=(4, 4, 4)),
        # The MLP ratios are those of the released checkpoints; the paper's text has others.
        'large': dict(embed_dims=(384, 768, 1024), depths=(2, 2, 23), num_heads=16, mlp_ratios=(8, 8, 4)),
        'huge': dict(embed_dims=(768, 1024, 1280), depths=(2, 2, 31), num_heads=16, mlp_ratios=(8, 8, 4)),
    }
    OUT_TYPES = ('raw', 'featmap', 'avg_featmap')
    REL_POS = (None, 'shared', 'per_block', 'decomposed')
    FOURTH_LEVELS = (None, 'max_pool', 'conv')
    # A CPU runs the convolution stages on a few images at a time, so many that the widest tensor stays in its cache.
    CPU_CHUNK = 16 * 2**20  # bytes
    # Whether the position embedding is trained; pretraining keeps the sine-cosine one.
    learnable_pos_embed = True

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_sizes: Sequence[int] = (4, 2, 2),
        in_channels: int = 3,
        kernel_size: int = 5,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        rel_pos: str | None = None,
        layer_scale_init_value: float = 0.0,
        fourth_level: str | None = None,
        fourth_level_norm_cfg: dict = dict(type='SyncBN'),
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'avg_featmap',
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        frozen_stages: int = -1,
        pad_value: float | None = None,
        with_cp: bool = False,
        interpolate_mode: str = 'bicubic',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = self._parse_arch(arch)
        self.embed_dims, self.depths = tuple(arch['embed_dims']), tuple(arch['depths'])
        for name, value, choices in (
            ('out_type', out_type, self.OUT_TYPES),
            ('rel_pos', rel_pos, self.REL_POS),
            ('fourth_level', fourth_level, self.FOURTH_LEVELS),
        ):
            if value not in choices:
                raise ValueError(f'`{name}` is {value!r}; choose one of {", ".join(map(str, choices))}.')
        if kernel_size % 2 == 0:
            raise ValueError(f'`kernel_size` is {kernel_size}; the depthwise kernel needs an odd edge.')
        if len(patch_sizes) != 3:
            raise ValueError(f'`patch_sizes` is {patch_sizes}; give one size for each of the three stages.')
        if frozen_stages > 3:
            raise ValueError(f'`frozen_stages` is {frozen_stages}; there are 3 stages.')
        depth = self.depths[2]
        if not all(-depth <= i < depth for i in global_attn_indexes):
            raise ValueError(
                f'`global_attn_indexes` is {global_attn_indexes}; stage 3 has the blocks 0 to {depth - 1}.'
            )
        self.patch_sizes = tuple(patch_sizes)
        self.stride = math.prod(patch_sizes)
        self.out_type = out_type
        self.out_indices = self._parse_out_indices(out_indices, 3 if fourth_level is None else 4)
        self.frozen_stages = frozen_stages
        self.pad_value = pad_value
        self.window_size = window_size
        self.with_cp = with_cp

        grid = self._get_grid(*to_2tuple(img_size))
        window_sizes = [window_size] * depth
        for i in global_attn_indexes:
            window_sizes[i] = 0
        make_positions = partial(RelativePositionBias, num_heads=arch['num_heads'])
        if rel_pos == 'decomposed':
            make_positions = partial(DecomposedRelativePosition, head_dims=self.embed_dims[2] // arch['num_heads'])
        conv_block = partial(ConvBlock, kernel_size=kernel_size)
        transformer_block = partial(
            TransformerBlock,
            num_heads=arch['num_heads'],
            layer_scale_init_value=layer_scale_init_value,
            norm_cfg=norm_cfg,
        )
        transformer_blocks = []
        for size in window_sizes:
            own = make_positions((size, size) if size else grid) if rel_pos in ('per_block', 'decomposed') else None
            transformer_blocks.append(partial(transformer_block, window_size=size, rel_pos=own))

        drop_path_rates = iter(np.linspace(0, drop_path_rate, sum(self.depths)).tolist())
        blocks = ([conv_block] * self.depths[0], [conv_block] * self.depths[1], transformer_blocks)
        self.patch_embeds, self.stages = nn.ModuleList(), nn.ModuleList()
        in_dims = in_channels
        for dims, ratio, patch_size, stage in zip(self.embed_dims, arch['mlp_ratios'], patch_sizes, blocks):
            self.patch_embeds.append(PatchEmbed(in_dims, dims, patch_size))
            self.stages.append(
                nn.ModuleList(
                    block(embed_dims=dims, mlp_ratio=ratio, drop_path_rate=next(drop_path_rates)) for block in stage
                )
            )
            in_dims = dims
        # On the way into stage 3: a linear layer (the authors' patch_embed4) and the position embedding.
        self.token_embed = nn.Linear(in_dims, in_dims)
        self.pos_embed = PositionEmbedding(grid, in_dims, self.learnable_pos_embed, interpolate_mode)
        self.shared_rel_pos = nn.ModuleDict()
        if rel_pos == 'shared':
            for size in sorted(set(window_sizes)):
                self.shared_rel_pos[self._attention_kind(size)] = make_positions((size, size) if size else grid)
        self.fourth_level = self._build_fourth_level(fourth_level, in_dims, fourth_level_norm_cfg)
        if out_type == 'avg_featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', build_norm_layer(norm_cfg, (*self.embed_dims, in_dims)[i]))

        self._register_load_state_dict_pre_hook(self._check_checkpoint)
        self._freeze_stages()

    def _parse_arch(self, arch: str | dict) -> dict:
        if isinstance(arch, str):
            if arch not in self.arch_zoo:
                raise ValueError(f'`arch` is {arch!r}; choose one of {", ".join(self.arch_zoo)} or give a dict.')
            return self.arch_zoo[arch]
        expected = set(self.arch_zoo['base'])
        if set(arch) != expected:
            raise ValueError(f'`arch` has the keys {sorted(arch)}; it needs {sorted(expected)}.')
        for key in expected - {'num_heads'}:
            if len(arch[key]) != 3:
                raise ValueError(f'`arch` has {key}={arch[key]}; give one value for each of the three stages.')
        if arch['embed_dims'][2] % arch['num_heads']:
            raise ValueError(
                f'The width of stage 3, {arch["embed_dims"][2]}, is not divisible by its {arch["num_heads"]} heads; '
                'change `embed_dims` or `num_heads` in `arch`.'
            )
        return arch

    @staticmethod
    def _parse_out_indices(out_indices: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
        indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not indices or not all(-num_levels <= i < num_levels for i in indices):
            raise ValueError(
                f'`out_indices` is {out_indices}; the stages are 0, 1 and 2, and 3 is there with a `fourth_level`.'
            )
        return tuple(i % num_levels for i in indices)

    @staticmethod
    def _attention_kind(window_size: int) -> str:
        return 'window' if window_size else 'global'

    @staticmethod
    def _build_fourth_level(kind: str | None, embed_dims: int, norm_cfg: dict) -> nn.Module | None:
        if kind == 'conv':
            conv = nn.Conv2d(embed_dims, embed_dims, 3, stride=2)
            return nn.Sequential(conv, build_norm_layer(norm_cfg, embed_dims), nn.GELU())
        return nn.MaxPool2d(2, ceil_mode=True) if kind == 'max_pool' else None

    def _get_grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'The image is {height} x {width} pixels, which the total stride of {self.stride} (patch sizes '
                f'{self.patch_sizes}) does not divide; resize, crop or pad it to multiples of {self.stride}.'
            )
        return height // self.stride, width // self.stride

    def get_grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of stage-3 tokens for a batch of images.

        Args:
            images (Tensor): Shape (B, in_channels, H, W), in pixels.

        Returns:
            tuple[int, int]: H and W divided by the total stride.

        Raises:
            ValueError: If the total stride does not divide H and W.
        """
        return self._get_grid(*images.shape[-2:])

    def init_weights(self) -> None:
        """Initialise the parameters, then apply ``init_cfg``.

        Raises:
            FileNotFoundError: If the checkpoint of ``init_cfg`` is not there.
        """
        self._init_parameters()
        try:
            super().init_weights()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'The checkpoint that the backbone starts from is missing ({error}); pretrain first, or set '
                '`model.backbone.init_cfg.checkpoint` to one that is there, or `model.backbone.init_cfg` to None for '
                'random weights.'
            ) from error

    def _init_parameters(self) -> None:
        """Truncated normal of deviation 0.02 and no bias for linear layers; convolutions keep PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            x (Tensor): Images of shape (B, in_channels, H, W); the total stride divides H and W.

        Returns:
            tuple[Tensor]: One tensor for each of ``out_indices``, in the form that ``out_type`` names.

        Raises:
            ValueError: If the total stride does not divide H and W.
        """
        maps = self._forward_stages(x) if self.pad_value is None else self._forward_unpadded(x)
        if self.fourth_level is not None:
            level = self.fourth_level(maps[2].permute(0, 3, 1, 2))  # (B, C3, H / 32, W / 32)
            maps.append(level.permute(0, 2, 3, 1))
        return tuple(self._format_output(i, maps[i]) for i in self.out_indices)

    def _forward_stages(self, x: Tensor) -> list[Tensor]:
        """Run the three stages on images of shape (B, in_channels, H, W); the maps are (B, H_i, W_i, C_i)."""
        grid = self.get_grid(x)
        stage1 = self.forward_conv_stage(0, x.permute(0, 2, 3, 1))  # (B, H / 4, W / 4, C1)
        stage2 = self.forward_conv_stage(1, stage1)  # (B, H / 8, W / 8, C2)
        tokens = self.forward_transformer_stage(stage2, self.pos_embed(grid), grid)  # (B, H / 16 * W / 16, C3)
        return [stage1, stage2, tokens.unflatten(1, grid)]

    def _forward_unpadded(self, x: Tensor) -> list[Tensor]:
        """As :meth:`_forward_stages`, but without the padding of each image, where the maps are 0."""
        grid = self.get_grid(x)
        unit = self.stride if self.fourth_level is None else 2 * self.stride
        sizes = unpadded_sizes(x, self.pad_value, unit)
        strides = [self.stride // math.prod(self.patch_sizes[: i + 1]) for i in range(3)]  # of stage-3 tokens
        maps = [
            x.new_zeros(len(x), grid[0] * stride, grid[1] * stride, dims)
            for stride, dims in zip(strides, self.embed_dims)
        ]
        for height, width in dict.fromkeys(sizes):
            images = [i for i, size in enumerate(sizes) if size == (height, width)]
            for whole, part in zip(maps, self._forward_stages(x[images, :, :height, :width])):
                whole[images, : part.shape[1], : part.shape[2]] = part.to(whole.dtype)
        return maps

    def forward_conv_stage(self, i: int, x: Tensor, visible: Tensor | TileIndex | None = None) -> Tensor:
        """Run stage 1 or 2.

        Args:
            i (int): Index of the stage, 0 or 1.
            x (Tensor): Maps of shape (B, H, W, C), or visible tiles of shape (B, N, t, t, C).
            visible (Tensor | TileIndex, optional): See :meth:`ConvBlock.forward`.

        Returns:
            Tensor: Maps of shape (B, H / p, W / p, C_i), or tiles of shape (B, N, t / p, t / p, C_i).
        """
        num_images = len(x)
        if x.device.type == 'cpu':
            positions = math.prod(x.shape[1:-1]) // self.patch_sizes[i] ** 2
            widest = positions * self.stages[i][0].ffn[0].out_channels * x.element_size()  # bytes of an image
            num_images = max(1, self.CPU_CHUNK // widest)
        chunks = x.split(num_images)
        masks = [None] * len(chunks) if visible is None else visible.split(num_images)
        outs = []
        for chunk, mask in zip(chunks, masks):
            out = self.patch_embeds[i](chunk)
            for block in self.stages[i]:
                out = self._run_block(block, out, mask)
            outs.append(out)
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def forward_transformer_stage(self, x: Tensor, pos_embed: Tensor, grid: tuple[int, int]) -> Tensor:
        """Run stage 3.

        Args:
            x (Tensor): Maps of shape (B, H, W, C2), or visible tiles of shape (B, N, p, p, C2).
            pos_embed (Tensor): Position embedding of the tokens, shape (1 or B, L, C3).
            grid (tuple[int, int]): Rows and columns of tokens, their product L; visible tiles stand in one row.

        Returns:
            Tensor: Tokens of shape (B, L, C3), with L = H / p * W / p or N.
        """
        x = self.patch_embeds[2](x).flatten(1, -2)  # (B, L, C3)
        x = self.token_embed(x) + pos_embed
        windows = {'window': (self.window_size, self.window_size), 'global': grid}
        shared = {kind: rel_pos(windows[kind]) for kind, rel_pos in self.shared_rel_pos.items()}
        for block in self.stages[2]:
            x = self._run_block(block, x, grid, shared.get(self._attention_kind(block.attn.window_size)))
        return x

    def _run_block(self, block: nn.Module, x: Tensor, *args) -> Tensor:
        if self.with_cp and self.training and x.requires_grad:
            return checkpoint(block, x, *args, use_reentrant=False)
        return block(x, *args)

    def _format_output(self, i: int, x: Tensor) -> Tensor:
        """Bring a map of shape (B, H, W, C) into the form that ``out_type`` names."""
        if self.out_type == 'raw':
            return x.flatten(1, 2)
        if self.out_type == 'featmap':
            return x.permute(0, 3, 1, 2).contiguous()
        return getattr(self, f'norm{i}')(x.mean(dim=(1, 2)))

    def _freeze_stages(self) -> None:
        """Switch off gradients and training behaviour of the first ``frozen_stages`` stages."""
        if self.frozen_stages == 3:
            frozen = list(self.children())
        else:
            frozen = [module for i in range(self.frozen_stages) for module in (self.patch_embeds[i], self.stages[i])]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'ConvViT':
        """Set the training mode of everything that is not frozen."""
        super().train(mode)
        self._freeze_stages()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay.

        As in the released recipes, the patch and position embeddings and both convolution stages are layer 0, block i
        of stage 3 is layer i + 1, and all else is the last layer.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): What the names of the backbone's parameters start with. Defaults to ''.

        Returns:
            tuple[int, int]: The layer, from 0, and the number of layers.
        """
        num_layers = self.depths[2] + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        if name.startswith(('patch_embeds.', 'token_embed.', 'pos_embed.', 'stages.0.', 'stages.1.')):
            return 0, num_layers
        if name.startswith('stages.2.'):
            return int(name.split('.')[2]) + 1, num_layers
        return num_layers - 1, num_layers

    def _check_checkpoint(self, state_dict: dict, prefix: str, *args) -> None:
        """Refuse a state dict of another architecture, which loading that is not strict would pass over."""
        own = {prefix + name: value for name, value in self.state_dict().items()}
        loaded = {name: value for name, value in state_dict.items() if name in own}
        if state_dict and not loaded:
            raise ValueError(
                f'The checkpoint holds nothing of this {type(self).__name__}: its names are like '
                f'{next(iter(state_dict))!r} and not like {next(iter(own))!r}. Convert an official checkpoint with '
                "tools/model_converters/convmae_official.py, and load a pretraining one with `prefix='backbone.'`."
            )
        # Position embeddings and tables may be of another grid: they are resized.
        grids = {f'{prefix}{name}.weight' for name, module in self.named_modules() if isinstance(module, GridEmbedding)}
        for name, value in loaded.items():
            fits = value.shape[-1] == own[name].shape[-1] if name in grids else value.shape == own[name].shape
            if not fits:
                raise ValueError(
                    f'The checkpoint is of another architecture: {name} is {tuple(value.shape)} in it and '
                    f'{tuple(own[name].shape)} in this model; set `arch`, `patch_sizes` and `kernel_size` to those of '
                    'the checkpoint.'
                )
        for i, depth in enumerate(self.depths):
            start = f'{prefix}stages.{i}.'
            in_checkpoint = {name[len(start) :].split('.')[0] for name in state_dict if name.startswith(start)}
            if in_checkpoint and len(in_checkpoint) != depth:
                raise ValueError(
                    f'The checkpoint is of another architecture: stage {i + 1} has {len(in_checkpoint)} blocks in it '
                    f'and {depth} in this model; set `depths` in `arch` to those of the checkpoint.'
                )
