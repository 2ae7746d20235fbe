import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.checkpoint import check_state_dict
from mmconvmae.registry import MODELS
from mmconvmae.utils import check_choice, check_config, check_integer, check_number, check_stages
from mmconvmae.utils.old_torch import register_load_state_dict_pre_hook

from ..layers import ConvStage, PositionEmbedding, TransformerStage, to_maps
from .convvit_arch import ARCH_ZOO, parse_arch


def _parse_size(img_size: int | Sequence[int], name: str = 'img_size') -> tuple[int, int]:
    """Height and width of an image, from one edge or both."""
    size = to_2tuple(img_size)
    if not isinstance(img_size, (int, Sequence)) or isinstance(img_size, str) or len(size) != 2:
        raise ValueError(f'`{name}` is {img_size!r}; give an edge, or height and width, in pixels.')
    for edge in size:
        check_integer(name, edge)
    return size


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
        img_size (int | Sequence[int]): Height and width of the usual input, in pixels. Defaults to 224.
        pretrain_img_size (int | Sequence[int], optional): Height and width of the images that the position embedding is
            made for; for others it is resized in each forward pass. Defaults to None: ``img_size``.
        patch_sizes (Sequence[int]): Edge of the patches that open each stage, in positions of the stage before. Their
            product is the total stride. Defaults to (4, 2, 2).
        in_channels (int): Number of image channels. Defaults to 3.
        kernel_size (int): Edge of the depthwise kernels, odd. Defaults to 5.
        window_size (int): Edge of the windows that attention of stage 3 is confined to, in tokens. Defaults to 0: all
            blocks attend globally.
        global_attn_indexes (Sequence[int]): Blocks of stage 3, from 0 or negative from the end, that attend globally
            although there are windows. Defaults to ().
        pad_windows (bool): Whether the map is padded with zeros below and to the right, after the first norm of a
            block, until the windows divide it, and padding is attended to, as in detectron2's ViTDet. Defaults to
            False: windows at the lower and right edge are as large as what is left.
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
        norm_cfg (dict): Norm layer of stage 3's blocks and of ``'avg_featmap'``. Defaults to
            ``dict(type='LN', eps=1e-6)``.
        conv_norm_cfg (dict): Norm layer of the blocks of stages 1 and 2, over the channels of maps that are channels
            last. Defaults to ``dict(type='LN', eps=1e-5)``.
        frozen_stages (int): Number of stages, from the first, that stay as they are: no gradient, always in eval mode.
            With 3 everything is frozen. Defaults to -1, none.
        with_cp (bool): Whether blocks are computed again in the backward pass, to save memory. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If an argument is not one of the above, or if a loaded checkpoint is of another architecture.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import ConvViT
        >>> backbone = ConvViT('tiny', out_type='featmap', out_indices=(0, 1, 2)).eval()
        >>> for level in backbone(torch.randn(1, 3, 64, 96)):
        ...     print(tuple(level.shape))
        (1, 48, 16, 24)
        (1, 96, 8, 12)
        (1, 192, 4, 6)
    """

    arch_zoo = ARCH_ZOO
    OUT_TYPES = ('raw', 'featmap', 'avg_featmap')
    REL_POS = (None, 'shared', 'per_block', 'decomposed')
    FOURTH_LEVELS = (None, 'max_pool', 'conv')
    # Pretraining has the fixed sine-cosine one.
    pos_embed_type = PositionEmbedding
    # An image has no time axis; VideoConvViT takes clips.
    num_frames, tubelet_size, temporal_kernel_size = None, 1, None

    num_extra_tokens = 0  # as mmpretrain's vis_cam asks; there is no class token

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        pretrain_img_size: int | Sequence[int] | None = None,
        patch_sizes: Sequence[int] = (4, 2, 2),
        in_channels: int = 3,
        kernel_size: int = 5,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        pad_windows: bool = False,
        rel_pos: str | None = None,
        layer_scale_init_value: float = 0.0,
        fourth_level: str | None = None,
        fourth_level_norm_cfg: dict = dict(type='SyncBN'),
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'avg_featmap',
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        conv_norm_cfg: dict = dict(type='LN', eps=1e-5),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = parse_arch(arch)
        check_stages('patch_sizes', patch_sizes, check_integer)
        check_integer('in_channels', in_channels)
        check_integer('kernel_size', kernel_size)
        check_integer('window_size', window_size, 0)
        check_number('layer_scale_init_value', layer_scale_init_value)
        check_number('drop_path_rate', drop_path_rate, 0, 1)
        check_config('norm_cfg', norm_cfg)
        check_config('conv_norm_cfg', conv_norm_cfg)
        check_choice('pad_windows', pad_windows, (False, True))
        check_choice('rel_pos', rel_pos, self.REL_POS)
        check_choice('fourth_level', fourth_level, self.FOURTH_LEVELS)
        check_choice('out_type', out_type, self.OUT_TYPES)
        check_choice('frozen_stages', frozen_stages, range(-1, 4))
        check_choice('with_cp', with_cp, (False, True))
        # Facts that others read off the backbone, such as ConvMAE for its neck and head.
        self.embed_dims, self.depths = tuple(arch['embed_dims']), tuple(arch['depths'])
        self.in_channels, self.img_size, self.patch_sizes = in_channels, _parse_size(img_size), tuple(patch_sizes)
        self.stride = math.prod(patch_sizes)
        self.out_type, self.out_indices = out_type, self._parse_out_indices(out_indices, fourth_level)
        self.frozen_stages = frozen_stages

        rates = np.linspace(0, drop_path_rate, sum(self.depths)).tolist()
        dims = (in_channels * self.tubelet_size, *self.embed_dims)
        settings = [
            dict(
                in_channels=dims[i],
                embed_dims=dims[i + 1],
                patch_size=patch_sizes[i],
                drop_path_rates=rates[sum(self.depths[:i]) : sum(self.depths[: i + 1])],
                mlp_ratio=arch['mlp_ratios'][i],
                with_cp=with_cp,
            )
            for i in range(3)
        ]
        convs = dict(kernel_size=kernel_size, temporal_kernel_size=self.temporal_kernel_size, norm_cfg=conv_norm_cfg)
        pos_embed_size = (
            self.img_size if pretrain_img_size is None else _parse_size(pretrain_img_size, 'pretrain_img_size')
        )
        pos_embed_grid = self._get_grid(*self._usual_size(pos_embed_size))
        self.stages = nn.ModuleList(
            (
                ConvStage(**convs, **settings[0]),
                ConvStage(**convs, **settings[1]),
                TransformerStage(
                    num_heads=arch['num_heads'],
                    pos_embed=self.pos_embed_type(pos_embed_grid, self.embed_dims[2]),
                    grid=self._get_grid(*self._usual_size(self.img_size)),
                    window_size=window_size,
                    global_attn_indexes=global_attn_indexes,
                    pad_windows=pad_windows,
                    rel_pos=rel_pos,
                    layer_scale_init_value=layer_scale_init_value,
                    norm_cfg=norm_cfg,
                    **settings[2],
                ),
            )
        )
        self.fourth_level = self._build_fourth_level(fourth_level, dims[-1], fourth_level_norm_cfg)
        if out_type == 'avg_featmap':
            for i in self.out_indices:
                self.add_module(f'norm{i}', build_norm_layer(norm_cfg, (*self.embed_dims, dims[-1])[i]))
        register_load_state_dict_pre_hook(self, check_state_dict)
        self._freeze_stages()

    @staticmethod
    def _parse_out_indices(out_indices: int | Sequence[int], fourth_level: str | None) -> tuple[int, ...]:
        num_levels = 3 if fourth_level is None else 4
        indices = out_indices if isinstance(out_indices, Sequence) else [out_indices]
        if not indices or not all(isinstance(i, int) and -num_levels <= i < num_levels for i in indices):
            raise ValueError(
                f'`out_indices` is {out_indices!r}; the stages are 0, 1 and 2, and 3 is there with a `fourth_level`.'
            )
        return tuple(i % num_levels for i in indices)

    @staticmethod
    def _build_fourth_level(kind: str | None, embed_dims: int, norm_cfg: dict) -> nn.Module | None:
        if kind == 'conv':
            check_config('fourth_level_norm_cfg', norm_cfg)
            conv = nn.Conv2d(embed_dims, embed_dims, 3, stride=2)
            return nn.Sequential(conv, build_norm_layer(norm_cfg, embed_dims), nn.GELU())
        return nn.MaxPool2d(2, ceil_mode=True) if kind == 'max_pool' else None

    def _usual_size(self, img_size: tuple[int, int]) -> tuple[int, ...]:
        """The axes of a usual input whose images have this height and width, without channels."""
        return img_size

    def _get_grid(self, height: int, width: int) -> tuple[int, int]:
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'The image is {height} x {width} pixels, which the total stride of {self.stride} (patch sizes '
                f'{self.patch_sizes}) does not divide; resize, crop or pad it to multiples of {self.stride}.'
            )
        return height // self.stride, width // self.stride

    def get_grid(self, images: Tensor) -> tuple[int, ...]:
        """Rows and columns of stage-3 tokens for a batch of images; for clips time slots, rows and columns.

        Args:
            images (Tensor): Shape (B, in_channels, H, W), in pixels; clips (B, in_channels, T, H, W).

        Returns:
            tuple[int, ...]: H and W divided by the total stride, and T before them by the frames that become one.

        Raises:
            ValueError: If the total stride does not divide H and W, with another number of channels, or of axes.
        """
        if images.dim() != 2 + len(self._usual_size(self.img_size)):
            kind, axes = ('images', 'H, W') if self.num_frames is None else ('clips', 'T, H, W')
            raise ValueError(
                f'{type(self).__name__} takes {kind} of shape (B, {self.in_channels}, {axes}), and these have the '
                f'shape {tuple(images.shape)}; change the pipeline, or the backbone.'
            )
        channels, *size = images.shape[1:]
        if channels != self.in_channels:
            raise ValueError(
                f'The images have {channels} channels, and the backbone takes {self.in_channels}; set `in_channels` of '
                'the backbone to that of the images, or change how they are loaded.'
            )
        if torch.jit.is_tracing():  # which has tensors for sizes, and holds for the traced one alone
            size = map(int, size)
        return self._get_grid(*size)

    def init_weights(self) -> None:
        """Initialise the parameters, then apply ``init_cfg``.

        Raises:
            FileNotFoundError: If the checkpoint of ``init_cfg`` is not there.
            ValueError: If it has no parameters under the prefix.
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
        except AssertionError as error:
            # mmengine's, of a prefix that no name has; there may be several entries in `init_cfg`.
            if 'is not in the pretrained model' not in str(error):
                raise
            raise ValueError(
                f'The checkpoint of `init_cfg` has no parameters with its `prefix` ({error}: {self.init_cfg}); give '
                'the prefix that the backbone has in it, or leave `prefix` out where it is the backbone alone.'
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
            ValueError: If the total stride does not divide H and W, or with another number of channels.
        """
        grid = self.get_grid(x)
        maps = self.forward_stages(to_maps(x, self.tubelet_size), grid)
        return tuple(self._format_output(i, maps[i]) for i in self.out_indices)

    def forward_stages(self, x: Tensor, grid: tuple[int, ...]) -> list[Tensor]:
        """Run all stages.

        Args:
            x (Tensor): Images of shape (B, H, W, in_channels), or clips as :func:`to_maps` gives them.
            grid (tuple[int, ...]): What :meth:`get_grid` gives.

        Returns:
            list[Tensor]: Maps of shape (B, H / s, W / s, C) for the strides s of the stages, 4, 8 and 16 by default. If
            there is a fourth level, its map too: half of the rows and columns before, rounded up, and with ``'conv'``
            one less. Of clips each map has a time axis, (B, T, H / s, W / s, C).
        """
        maps = []
        for stage in self.stages[:2]:
            x = stage(x)
            maps.append(x)
        x = self.stages[2](x, grid).unflatten(1, grid)
        maps.append(x)
        if self.fourth_level is not None:
            # Of a map that is channels last in memory, an exported convolution guesses the layout from the size.
            maps.append(self.fourth_level(x.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1))
        return maps

    def _format_output(self, i: int, x: Tensor) -> Tensor:
        """Bring a map of shape (B, [T,] H, W, C) into the form that ``out_type`` names."""
        if self.out_type == 'raw':
            return x.flatten(1, -2)
        if self.out_type == 'featmap':
            return x.movedim(x.dim() - 1, 1).contiguous()  # PyTorch's older exporter knows no -1 here
        return getattr(self, f'norm{i}')(x.mean(dim=tuple(range(1, x.dim() - 1))))

    def _freeze_stages(self) -> None:
        """Switch off gradients and training behaviour of the first ``frozen_stages`` stages."""
        frozen = self.children() if self.frozen_stages == 3 else self.stages[: max(0, self.frozen_stages)]
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
        if param_name.startswith(prefix):
            if name.startswith('stages.2.blocks.'):
                return int(name.split('.')[3]) + 1, num_layers
            embeddings = tuple(f'stages.2.{embedding}.' for embedding in ('patch_embed', 'token_embed', 'pos_embed'))
            if name.startswith(('stages.0.', 'stages.1.', *embeddings)):
                return 0, num_layers
        return num_layers - 1, num_layers
