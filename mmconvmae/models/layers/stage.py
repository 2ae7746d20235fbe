import math
from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .capture import captures_graph
from .conv_block import ConvBlock
from .grid_embedding import GridEmbedding
from .patch_embed import PatchEmbed, take_blocks
from .relative_position import DecomposedRelativePosition, RelativePositionBias
from .tile_conv import TileIndex
from .transformer_block import TransformerBlock


class Stage(nn.Module):
    """What every stage is: a patch embedding that opens it, and blocks.

    Args:
        patch_embed (PatchEmbed): The patch embedding.
        blocks (Sequence[nn.Module]): The blocks.
        with_cp (bool): Whether blocks are computed again in the backward pass, to save memory.
    """

    def __init__(self, patch_embed: PatchEmbed, blocks: Sequence[nn.Module], with_cp: bool) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def run_block(self, block: nn.Module, x: Tensor, *args) -> Tensor:
        """Call a block, with checkpointing where it saves something."""
        if self.with_cp and self.training and x.requires_grad:
            return checkpoint(block, x, *args, use_reentrant=False)
        return block(x, *args)


class ConvStage(Stage):
    """Stage 1 or 2: convolution blocks, on maps or on the tiles that a mask leaves (paper, sections 3.1 and 3.2).

    Args:
        in_channels (int): Number of input channels.
        embed_dims (int): Width of the stage.
        patch_size (int): Edge of the patches that open it, in positions of the input.
        drop_path_rates (Sequence[float]): Stochastic depth rate of each block.
        mlp_ratio (float): See :class:`ConvBlock`.
        kernel_size (int): See :class:`ConvBlock`.
        temporal_kernel_size (int, optional): See :class:`ConvBlock`.
        norm_cfg (dict): See :class:`ConvBlock`.
        with_cp (bool): See :class:`Stage`.
    """

    # A CPU runs a few images at a time, so many that the widest tensor stays in its cache.
    CPU_CHUNK = 16 * 2**20  # bytes

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        patch_size: int,
        drop_path_rates: Sequence[float],
        mlp_ratio: float,
        kernel_size: int,
        temporal_kernel_size: int | None,
        norm_cfg: dict,
        with_cp: bool,
    ) -> None:
        blocks = [
            ConvBlock(embed_dims, mlp_ratio, kernel_size, temporal_kernel_size, rate, norm_cfg)
            for rate in drop_path_rates
        ]
        super().__init__(PatchEmbed(in_channels, embed_dims, patch_size), blocks, with_cp)
        self.patch_size = patch_size
        self.hidden_dims = round(embed_dims * mlp_ratio)

    def forward(self, x: Tensor, visible: Tensor | TileIndex | None = None) -> Tensor:
        """Run the stage.

        Args:
            x (Tensor): Maps of shape (B, H, W, C), or visible tiles of shape (B, N, t, t, C); of clips with a time
                axis, (B, T, H, W, C) or (B, N, T, t, t, C).
            visible (Tensor | TileIndex, optional): See :meth:`ConvBlock.forward`; a tensor has the rows and columns of
                the maps that the stage returns.

        Returns:
            Tensor: Maps of shape (B, H / p, W / p, embed_dims), or tiles of shape (B, N, t / p, t / p, embed_dims),
            with p for ``patch_size``; a time axis stays as it is.
        """
        if x.device.type != 'cpu' or captures_graph():
            return self._run(x, visible)
        positions = math.prod(x.shape[1:-1]) // self.patch_size**2
        widest = positions * self.hidden_dims * x.element_size()  # bytes of an image
        chunks = x.split(max(1, self.CPU_CHUNK // widest))
        if len(chunks) == 1:
            return self._run(x, visible)
        parts = [None] * len(chunks) if visible is None else visible.split(len(chunks[0]))
        return torch.cat([self._run(chunk, part) for chunk, part in zip(chunks, parts)])

    def _run(self, x: Tensor, visible: Tensor | TileIndex | None) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = self.run_block(block, x, visible)
        return x


class TransformerStage(Stage):
    """Stage 3: transformer blocks on the tokens of a map, or on those that a mask leaves (paper, section 3.1).

    Between the patch embedding and the blocks stand a linear layer (the authors' patch_embed4) and the position
    embedding.

    Args:
        in_channels (int): Number of input channels.
        embed_dims (int): Width of the stage.
        patch_size (int): Edge of the patches that open it, in positions of the input.
        drop_path_rates (Sequence[float]): Stochastic depth rate of each block.
        mlp_ratio (float): See :class:`TransformerBlock`.
        num_heads (int): Number of attention heads.
        pos_embed (GridEmbedding): The position embedding.
        grid (tuple[int, ...]): Rows and columns of tokens of the usual input, for which relative positions of global
            blocks are made; of clips, time slots, rows and columns.
        window_size (int): Edge of the windows that attention is confined to, in tokens; 0 for none.
        global_attn_indexes (Sequence[int]): Blocks, from 0 or negative from the end, that attend globally nevertheless.
        pad_windows (bool): See :class:`WindowAttention`.
        rel_pos (str, optional): 'shared', 'per_block' or 'decomposed' relative positions.
        layer_scale_init_value (float): See :class:`TransformerBlock`.
        norm_cfg (dict): See :class:`TransformerBlock`.
        with_cp (bool): See :class:`Stage`.

    Raises:
        ValueError: If an index in ``global_attn_indexes`` is not that of a block.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        patch_size: int,
        drop_path_rates: Sequence[float],
        mlp_ratio: float,
        num_heads: int,
        pos_embed: GridEmbedding,
        grid: tuple[int, ...],
        window_size: int,
        global_attn_indexes: Sequence[int],
        pad_windows: bool,
        rel_pos: str | None,
        layer_scale_init_value: float,
        norm_cfg: dict,
        with_cp: bool,
    ) -> None:
        def positions(size: int) -> nn.Module:
            window = (size, size) if size else grid
            if rel_pos == 'decomposed':
                return DecomposedRelativePosition(window, embed_dims // num_heads)
            return RelativePositionBias(window, num_heads)

        depth = len(drop_path_rates)
        indexes = global_attn_indexes
        if not isinstance(indexes, Sequence) or not all(isinstance(i, int) and -depth <= i < depth for i in indexes):
            raise ValueError(
                f'`global_attn_indexes` is {indexes!r}; give a list of blocks of stage 3, which are 0 to {depth - 1}.'
            )
        sizes = [window_size] * depth
        for i in indexes:
            sizes[i] = 0
        blocks = [
            TransformerBlock(
                embed_dims,
                num_heads,
                mlp_ratio,
                window_size=size,
                rel_pos=positions(size) if rel_pos in ('per_block', 'decomposed') else None,
                pad_windows=pad_windows,
                layer_scale_init_value=layer_scale_init_value,
                drop_path_rate=rate,
                norm_cfg=norm_cfg,
            )
            for size, rate in zip(sizes, drop_path_rates)
        ]
        super().__init__(PatchEmbed(in_channels, embed_dims, patch_size), blocks, with_cp)
        self.token_embed = nn.Linear(embed_dims, embed_dims)
        self.pos_embed = pos_embed
        self.window_size = window_size
        # Tables that all windowed blocks share, and all global ones.
        shared = rel_pos == 'shared'
        self.window_rel_pos = positions(window_size) if shared and any(sizes) else None
        self.global_rel_pos = positions(0) if shared and 0 in sizes else None

    def forward(self, x: Tensor, grid: tuple[int, int], ids: Tensor | None = None) -> Tensor:
        """Run the stage.

        Args:
            x (Tensor): Maps of shape (B, H, W, C), or visible tiles of shape (B, N, p, p, C), with p for
                ``patch_size``; of clips with a time axis, (B, T, H, W, C) or (B, N, T, p, p, C). A stage for clips has
                neither windows nor relative positions: all tokens of a clip attend to all.
            grid (tuple[int, ...]): Rows and columns of tokens in an image; of clips, time slots, rows and columns.
            ids (Tensor, optional): Row-major place of each tile on the grid, shape (B, N), int64; given exactly when
                ``x`` is tiles. The stage may then have neither windows nor relative positions: all attend to all.

        Returns:
            Tensor: Tokens of shape (B, L, embed_dims), with L = H / p * W / p, row-major, or N. Of clips,
            (B, T * L, embed_dims), slot by slot, or (B, N * T, embed_dims), tube by tube.
        """
        pos_embed = self.pos_embed(grid)  # (1, [T,] L, embed_dims)
        if ids is not None:
            pos_embed = take_blocks(pos_embed.movedim(-2, 1), ids)  # (B, N, [T,] embed_dims)
            grid = (1, ids.shape[1])
        x = self.token_embed(self.patch_embed(x).flatten(1, -2)) + pos_embed.flatten(1, -2)
        in_windows = self.window_rel_pos and self.window_rel_pos((self.window_size, self.window_size))
        overall = self.global_rel_pos and self.global_rel_pos(grid)
        for block in self.blocks:
            x = self.run_block(block, x, grid, in_windows if block.attn.window_size else overall)
        return x
