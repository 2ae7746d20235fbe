import math

import torch.nn as nn
from torch import Tensor

from mmconvmae.registry import MODELS
from mmconvmae.utils import check_choice

from ..layers import SinCosPositionEmbedding, TileIndex, cut_tiles, take_blocks, to_maps
from ..mask_generators import ConvMAEMask
from .convvit import ConvViT


@MODELS.register_module()
class ConvMAEViT(ConvViT):
    """The masked encoder of ConvMAE: a ConvViT that can leave out the removed blocks of an image.

    Nothing of a removed block may reach a visible one. Patch embeddings do not overlap, so only the depthwise
    convolutions of stages 1 and 2 could carry it over; masked convolution stops them (section 3.2 of
    `MCMAE: Masked Convolution Meets Masked Autoencoders <https://arxiv.org/abs/2205.03892>`_). The values at removed
    positions then never matter, and by default they are not computed: each visible block is a tile of 4 x 4 tokens in
    stage 1, 2 x 2 in stage 2 and one token in stage 3.

    Parameters and their names are those of :class:`ConvViT`; the position embedding is fixed.

    Args:
        conv_mode (str): What the convolution stages compute of a masked image.

            - ``'visible'``: visible tiles alone.
            - ``'masked'``: whole maps with masked convolutions, which gives the same outputs for the kept blocks. Masks
              of cells smaller than a block need it.
            - ``'unmasked'``: whole maps without masking the convolutions, the ablation in table 5 of the paper.

            Defaults to 'visible'.
        out_type (str): As for :class:`ConvViT`. Defaults to 'featmap'.
        **kwargs: Arguments of :class:`ConvViT` but for windows and relative positions; ``out_indices``, ``out_type``
            and ``fourth_level`` hold for images without a mask.

    Raises:
        ValueError: If an argument is not one of the above.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import ConvMAEMaskGenerator, ConvMAEViT
        >>> encoder = ConvMAEViT('tiny', img_size=64)
        >>> mask = ConvMAEMaskGenerator(mask_ratio=0.75)(2, (4, 4))
        >>> [tuple(tokens.shape) for tokens in encoder(torch.randn(2, 3, 64, 64), mask)]
        [(2, 4, 4, 4, 48), (2, 4, 2, 2, 96), (2, 4, 192)]
    """

    CONV_MODES = ('visible', 'masked', 'unmasked')
    pos_embed_type = SinCosPositionEmbedding

    def __init__(self, *args, conv_mode: str = 'visible', out_type: str = 'featmap', **kwargs) -> None:
        if kwargs.get('window_size') or kwargs.get('rel_pos'):
            raise ValueError(
                'Visible tokens attend to each other globally and by their position embedding alone: set `window_size` '
                'and `rel_pos` where the pretrained backbone is used, and not in pretraining.'
            )
        super().__init__(*args, out_type=out_type, **kwargs)
        check_choice('conv_mode', conv_mode, self.CONV_MODES)
        self.conv_mode = conv_mode

    def _init_parameters(self) -> None:
        """As MAE: linear layers, and the last patch embedding as if it were one, xavier-uniform; no linear bias."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.stages[2].patch_embed.projection.weight.data.flatten(1))

    def forward(self, x: Tensor, mask: ConvMAEMask | None = None) -> tuple[Tensor, ...]:
        """Compute features of whole images or of the visible blocks of masked ones.

        Args:
            x (Tensor): Images of shape (B, in_channels, H, W); the total stride divides H and W.
            mask (ConvMAEMask, optional): Masks for these images, as many for each. Defaults to None: nothing is
                removed.

        Returns:
            tuple[Tensor]: Without a mask, as :meth:`ConvViT.forward`. With one, the kept blocks at three scales, in
            the order of ``mask.ids_keep``: tiles of shape (B, N, t1, t1, C1) and (B, N, t2, t2, C2), with 4 and 2
            for t1 and t2 by default, and tokens of shape (B, N, C3). B counts masks here; what one shows is not seen
            from another.

        Raises:
            ValueError: If the total stride does not divide H and W, with another number of channels, if the mask is for
                another grid, or if it does not go with ``conv_mode``.
        """
        if mask is None:
            return super().forward(x)
        grid = self.get_grid(x)
        if mask.grid != grid[-2:]:
            raise ValueError(
                f'The mask is for {mask.grid[0]} x {mask.grid[1]} blocks, and the images have {grid[-2]} x {grid[-1]}.'
            )
        x = to_maps(x, self.tubelet_size)  # (B, H, W, in_channels)
        run_stages = self.forward_visible_stages if self.conv_mode == 'visible' else self._forward_dense_stages
        stage1, stage2 = run_stages(x, mask)
        tokens = self.stages[2](stage2, grid, mask.ids_keep)
        return stage1, stage2, tokens.unflatten(1, stage2.shape[1:-3])  # of clips the time axis comes back

    def forward_visible_stages(self, x: Tensor, mask: ConvMAEMask) -> tuple[Tensor, Tensor]:
        """Run stages 1 and 2 on visible blocks alone.

        Args:
            x (Tensor): Images of shape (images, H, W, in_channels), or clips as :func:`to_maps` gives them.
            mask (ConvMAEMask): Block-wise masks, as many for each image.

        Returns:
            tuple[Tensor, Tensor]: Tiles of shape (B, N, t1, t1, C1) and (B, N, t2, t2, C2), B the number of masks; of
            clips with a time axis after N.

        Raises:
            ValueError: If the mask removes parts of blocks.
        """
        if not mask.is_block_wise:
            raise ValueError(
                "`conv_mode='visible'` computes whole blocks, and this mask removes parts of them; use "
                "`conv_mode='masked'` or a generator with `cells_per_edge=1`."
            )
        tiles = TileIndex.from_ids(mask.ids_keep, mask.grid)
        x = take_blocks(cut_tiles(x, self.stride), mask.ids_keep)  # (B, N, 16, 16, in_channels)
        stage1 = self.stages[0](x, tiles)  # (B, N, 4, 4, C1)
        return stage1, self.stages[1](stage1, tiles)  # (B, N, 2, 2, C2)

    def _forward_dense_stages(self, x: Tensor, mask: ConvMAEMask) -> list[Tensor]:
        """As :meth:`forward_visible_stages`, on whole maps, of which the kept blocks are cut out afterwards."""
        outs = []
        x = x.repeat_interleave(len(mask.ids_keep) // len(x), 0)  # (B, H, W, in_channels), an image for each mask
        for i, stage in enumerate(self.stages[:2]):
            size = math.prod(self.patch_sizes[i + 1 :])  # edge of a block in this stage
            visible = None
            if self.conv_mode == 'masked':
                visible = mask.visible(*(n * size for n in mask.grid))  # (B, H_i, W_i, 1)
                if x.dim() == 5:
                    visible = visible.unsqueeze(1)  # the same at all times
            x = stage(x, visible)  # (B, H_i, W_i, C_i)
            if visible is not None:
                x = x * visible  # the next patch embedding must not mix removed cells in
            outs.append(take_blocks(cut_tiles(x, size), mask.ids_keep))  # (B, N, size, size, C_i)
        return outs
