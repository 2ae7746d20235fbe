from collections.abc import Sequence

import numpy as np
import torch.nn as nn
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer, VisionTransformer
from mmpretrain.models.utils import build_norm_layer, to_2tuple
from torch import Tensor

from mmconvmae.registry import MODELS
from mmconvmae.utils import check_choice, check_integer, check_number

from ..layers import PatchConv2d, SinCosPositionEmbedding, cut_tiles, take_blocks, to_maps
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class VideoMAEViT(BaseModule):
    """The ViT of VideoMAE, a rival on clips: tokens of 2 frames x 16 x 16 pixels, all of which attend to all.

    :class:`ConvMAE` pretrains it, with masks that remove 90 % of the tubes and a decoder of one scale; see sections 3.2
    to 3.4 of `VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training
    <https://arxiv.org/abs/2203.12602>`_. Three things differ from the released model:

    - Positions are fixed sines and cosines of time, row and column (:class:`SinCosPositionEmbedding`), as in the models
      that it is compared with; the released ones are of the place in one row of all tokens.
    - Removed tubes are not embedded. The released code embeds all and takes the visible ones: the same result for 1.7 G
      multiply-adds more a clip.
    - Keys have a bias, which attention cannot see.

    Clips may have any even number of frames, and any height and width that 16 divides.

    Args:
        arch (str | dict): A name of mmpretrain's ``VisionTransformer``, or a dict with its ``embed_dims``,
            ``num_layers``, ``num_heads`` and ``feedforward_channels``. Defaults to 'base'.
        img_size (int | Sequence[int]): Height and width of the usual clip, in pixels. Defaults to 224.
        num_frames (int): Frames of the usual clip. Defaults to 16.
        out_type (str): What is returned of a clip without a mask.

            - ``'featmap'``: tokens as a map of shape (B, D, T / 2, H / 16, W / 16).
            - ``'avg_featmap'``: the mean over all tokens and then LayerNorm, shape (B, D), for finetuning. Pretraining
              would leave that norm without a gradient.

            Defaults to 'featmap'.
        drop_path_rate (float): Stochastic depth rate of the last block; it rises linearly from 0. Defaults to 0.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to None.

    Raises:
        ValueError: If an argument is not one of the above.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import VideoMAEViT
        >>> backbone = VideoMAEViT('deit-tiny', img_size=64, num_frames=8, out_type='avg_featmap').eval()
        >>> backbone(torch.randn(2, 3, 8, 64, 64))[0].shape
        torch.Size([2, 192])
    """

    OUT_TYPES = ('featmap', 'avg_featmap')
    in_channels, tubelet_size, stride = 3, 2, 16
    patch_sizes = (16,)

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        num_frames: int = 16,
        out_type: str = 'featmap',
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not isinstance(arch, dict):
            check_choice('arch', arch, list(VisionTransformer.arch_zoo))
            arch = VisionTransformer.arch_zoo[arch]
        check_integer('num_frames', num_frames)
        check_choice('out_type', out_type, self.OUT_TYPES)
        check_number('drop_path_rate', drop_path_rate, 0, 1)
        width, depth = arch['embed_dims'], arch['num_layers']
        # What ConvMAE reads off for its neck and head; there is one stage.
        self.embed_dims, self.img_size, self.num_frames = (width,), to_2tuple(img_size), num_frames
        self.out_type = out_type
        norm_cfg = dict(type='LN', eps=1e-6)
        self.patch_embed = PatchConv2d(self.tubelet_size * self.in_channels, width, self.stride)
        self.pos_embed = SinCosPositionEmbedding(self._get_grid(num_frames, *self.img_size), width)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(
                width, arch['num_heads'], arch['feedforward_channels'], drop_path_rate=rate, norm_cfg=norm_cfg
            )
            for rate in np.linspace(0, drop_path_rate, depth).tolist()
        )
        if out_type == 'avg_featmap':
            self.norm = build_norm_layer(norm_cfg, width)

    def init_weights(self) -> None:
        """Initialise linear layers xavier-uniform without bias, then apply ``init_cfg``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        super().init_weights()

    def _get_grid(self, *size: int) -> tuple[int, int, int]:
        steps = (self.tubelet_size, self.stride, self.stride)
        if any(length < step or length % step for length, step in zip(size, steps)):
            raise ValueError(
                f'The clip has {size[0]} frames of {size[1]} x {size[2]} pixels; take a multiple of '
                f'{self.tubelet_size} frames, and resize, crop or pad them to multiples of {self.stride} pixels.'
            )
        return tuple(length // step for length, step in zip(size, steps))

    def get_grid(self, clips: Tensor) -> tuple[int, int, int]:
        """Time slots, rows and columns of tokens for a batch of clips.

        Args:
            clips (Tensor): Shape (B, 3, T, H, W), in frames and pixels.

        Returns:
            tuple[int, int, int]: T / 2, H / 16 and W / 16.

        Raises:
            ValueError: If 2 does not divide T or 16 not H and W, with another number of channels, or of axes.
        """
        if clips.dim() != 5 or clips.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} takes clips of shape (B, {self.in_channels}, T, H, W), and these have the '
                f'shape {tuple(clips.shape)}; change the pipeline, or the backbone.'
            )
        return self._get_grid(*clips.shape[2:])

    def forward(self, x: Tensor, mask: ConvMAEMask | None = None) -> tuple[Tensor]:
        """Compute features of whole clips, or of the tubes that are visible in masked ones.

        Args:
            x (Tensor): Clips of shape (B, 3, T, H, W), as :meth:`get_grid` takes them.
            mask (ConvMAEMask, optional): Masks for these clips, as many for each. Defaults to None: nothing is removed.

        Returns:
            tuple[Tensor]: Without a mask, what ``out_type`` names. With one, tokens of the kept tubes in the order of
            ``mask.ids_keep``, before any final norm, shape (B, N, T / 2, D); B counts masks here.

        Raises:
            ValueError: If the clips are not as above, if the mask is for another grid, or if it removes parts of tubes.
        """
        grid = self.get_grid(x)
        if mask is not None and (mask.grid != grid[1:] or not mask.is_block_wise):
            raise ValueError(
                f'The mask is one of {" x ".join(map(str, mask.removed.shape[1:]))} places, and the clips have '
                f'{grid[1]} x {grid[2]} tubes, of which whole ones are removed; make the mask for these.'
            )
        x = cut_tiles(to_maps(x, self.tubelet_size), self.stride)  # (B, L, T, 16, 16, 6)
        pos_embed = self.pos_embed(grid).movedim(-2, 1)  # (1, L, T, D)
        if mask is not None:
            x, pos_embed = take_blocks(x, mask.ids_keep), take_blocks(pos_embed, mask.ids_keep)
        x = self.patch_embed(x).flatten(-4, -2) + pos_embed  # (B, L or N, T, D)
        tubes = x.shape[1]
        x = x.flatten(1, 2)
        for layer in self.layers:
            x = layer(x)
        if mask is None and self.out_type == 'avg_featmap':
            return (self.norm(x.mean(1)),)
        x = x.unflatten(1, (tubes, grid[0]))
        return (x if mask is not None else x.permute(0, 3, 2, 1).unflatten(3, grid[1:]).contiguous(),)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay: embeddings are layer 0, block i is layer i + 1.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): What the names of the backbone's parameters start with. Defaults to ''.

        Returns:
            tuple[int, int]: The layer, from 0, and the number of layers; all else is of the last.
        """
        num_layers = len(self.layers) + 2
        if param_name.startswith(f'{prefix}layers.'):
            return int(param_name.removeprefix(prefix).split('.')[1]) + 1, num_layers
        is_embedding = param_name.startswith((f'{prefix}patch_embed.', f'{prefix}pos_embed.'))
        return 0 if is_embedding else num_layers - 1, num_layers
