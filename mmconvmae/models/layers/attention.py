from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.utils import MultiheadAttention, build_norm_layer
from torch import Tensor

from .grid_embedding import GridEmbedding, in_autocast_type


class TableBias(NamedTuple):
    """What a table of relative positions adds to the attention of a window.

    Args:
        bias (Tensor): Shape (heads, h, w, h, w): rows and columns of the query, then those of the key.
    """

    bias: Tensor

    def mask(self, query: Tensor, window: tuple[int, int]) -> Tensor:
        """Attention mask of windows.

        Args:
            query (Tensor): Shape (N, heads, rows * columns, head_dims); its values do not matter.
            window (tuple[int, int]): Rows and columns of the windows, at most h and w.

        Returns:
            Tensor: Shape (1, heads, rows * columns, rows * columns).
        """
        rows, columns = window
        return self.bias[None, :, :rows, :columns, :rows, :columns].flatten(4, 5).flatten(2, 3)


class RelativePositionBias(GridEmbedding):
    """A table with a learnable number for each head and each offset between query and key, zero at the start.

    The row for query (yq, xq) and key (yk, xk) is ``(yq - yk + h - 1) * (2 * w - 1) + (xq - xk + w - 1)``.

    Args:
        grid (tuple[int, int]): Height and width, h and w, of the usual window, in tokens. For another window the table
            is resized as a position embedding is.
        num_heads (int): Number of attention heads.
    """

    def __init__(self, grid: tuple[int, int], num_heads: int) -> None:
        offsets = (2 * grid[0] - 1, 2 * grid[1] - 1)
        super().__init__(torch.zeros(offsets[0] * offsets[1], num_heads), offsets)

    # At 1024 x 1024 pixels and 12 heads it has 0.8 GB in single precision.
    KEPT_GRIDS = 1

    def compute(self, window: tuple[int, int]) -> TableBias:
        """Spread the table over the pairs of positions of a window.

        Args:
            window (tuple[int, int]): Height and width of the window, in tokens.

        Returns:
            TableBias: With a bias of shape (heads, h, w, h, w).
        """
        offsets = (2 * window[0] - 1, 2 * window[1] - 1)
        table = in_autocast_type(super().compute(offsets)).t().unflatten(1, offsets)  # (heads, 2h - 1, 2w - 1)
        by_row = spread_offsets(table, 1, query_dim=1)  # (heads, h, h, 2w - 1)
        return TableBias(spread_offsets(by_row, 3, query_dim=2))


class DecomposedBias(NamedTuple):
    """What decomposed relative positions add to the attention of a window.

    Args:
        rows (Tensor): Shape (h, h, head_dims): the query's row, then the key's.
        columns (Tensor): Shape (w, w, head_dims), likewise.
    """

    rows: Tensor
    columns: Tensor

    def mask(self, query: Tensor, window: tuple[int, int]) -> Tensor:
        """Attention mask of windows.

        Args:
            query (Tensor): Shape (N, heads, rows * columns, head_dims), not scaled.
            window (tuple[int, int]): Rows and columns of the windows, at most h and w.

        Returns:
            Tensor: Shape (N, heads, rows * columns, rows * columns).
        """
        rows, columns = window
        query = query.unflatten(2, window)
        by_row = torch.einsum('nhyxd,ykd->nhyxk', query, self.rows[:rows, :rows])
        by_column = torch.einsum('nhyxd,xkd->nhyxk', query, self.columns[:columns, :columns])
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4, 5).flatten(2, 3)


class DecomposedRelativePosition(BaseModule):
    """A learnable vector for each offset of rows and one for each of columns, with which the query is multiplied.

    As in ViTDet (`Exploring Plain Vision Transformer Backbones for Object Detection
    <https://arxiv.org/abs/2203.16527>`_, section 4.1); zero at the start, the same for all heads.

    Args:
        grid (tuple[int, int]): Height and width of the usual window, in tokens. For another window the vectors are
            interpolated linearly.
        head_dims (int): Width of a head.
    """

    def __init__(self, grid: tuple[int, int], head_dims: int) -> None:
        super().__init__()
        self.rows, self.columns = (
            GridEmbedding(torch.zeros(2 * edge - 1, head_dims), (2 * edge - 1, 1), mode='bilinear') for edge in grid
        )

    def forward(self, window: tuple[int, int]) -> DecomposedBias:
        """Spread the vectors over the pairs of rows, and of columns, of a window.

        Args:
            window (tuple[int, int]): Height and width of the window, in tokens.

        Returns:
            DecomposedBias: With vectors of shapes (h, h, head_dims) and (w, w, head_dims).
        """
        vectors = (axis((2 * edge - 1, 1)) for axis, edge in zip((self.rows, self.columns), window))
        return DecomposedBias(*(spread_offsets(in_autocast_type(vector), 0, query_dim=0) for vector in vectors))


def spread_offsets(x: Tensor, dim: int, query_dim: int) -> Tensor:
    """Spread what stands for the offsets -(n - 1) to n - 1 between query and key over the pairs of n positions.

    It needs no index of all pairs, which for 64 x 64 tokens would have 17 million entries.

    Args:
        x (Tensor): With 2 * n - 1 offsets along ``dim``.
        dim (int): The axis of offsets, which becomes that of the n keys.
        query_dim (int): Where the axis of the n queries is put in the result.

    Returns:
        Tensor: With both axes.
    """
    n = (x.shape[dim] + 1) // 2
    x = x.flip(dim)  # the key's position grows while the offset falls
    return torch.stack([x.narrow(dim, n - 1 - query, n) for query in range(n)], dim=query_dim)


class WindowAttention(MultiheadAttention):
    """Multi-head attention over a whole map or within windows, with relative positions or without.

    A window at the lower or right edge is as large as what is left of the map: the result is that of a padded window
    in which padding is masked, for less work.

    Args:
        embed_dims (int): Number of channels.
        num_heads (int): Number of heads.
        window_size (int): Edge of the windows, in tokens; 0 for attention over the whole map. Defaults to 0.
        rel_pos (BaseModule, optional): Relative positions of this layer alone. Defaults to None.
        **kwargs: Arguments of mmpretrain's ``MultiheadAttention``.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, window_size: int = 0, rel_pos: BaseModule | None = None, **kwargs
    ) -> None:
        super().__init__(embed_dims, num_heads, **kwargs)
        self.window_size = window_size
        self.rel_pos = rel_pos

    def forward(self, x: Tensor, grid: tuple[int, int], positions: TableBias | DecomposedBias | None = None) -> Tensor:
        """Attend.

        Args:
            x (Tensor): Tokens of shape (B, H * W, C), row-major.
            grid (tuple[int, int]): H and W.
            positions (TableBias | DecomposedBias, optional): Relative positions that this layer shares with others.
                Defaults to None.

        Returns:
            Tensor: Shape (B, H * W, C).
        """
        window = (self.window_size, self.window_size) if self.window_size else grid
        if self.rel_pos is not None:
            positions = self.rel_pos(window)
        qkv = self.qkv(x).unflatten(1, grid).unflatten(-1, (3, self.num_heads, -1))  # (B, H, W, 3, heads, C / heads)
        rows = []
        for row in split_whole(qkv, 1, window[0]):
            rows.append(join([self._attend(part, window, positions) for part in split_whole(row, 2, window[1])], 2))
        x = join(rows, 1).flatten(1, 2)  # (B, H * W, C)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))

    def _attend(self, qkv: Tensor, window: tuple[int, int], positions: TableBias | DecomposedBias | None) -> Tensor:
        """Attend within the windows of a part of the map, which are all whole or all cut in the same way.

        Args:
            qkv (Tensor): Shape (B, H, W, 3, heads, head_dims).
            window (tuple[int, int]): Height and width of a whole window.
            positions (TableBias | DecomposedBias, optional): Relative positions in a whole window.

        Returns:
            Tensor: Shape (B, H, W, heads * head_dims).
        """
        height, width = (min(edge, length) for edge, length in zip(window, qkv.shape[1:3]))
        qkv = qkv.unflatten(2, (-1, width)).unflatten(1, (-1, height))  # (B, rows, h, columns, w, 3, heads, head_dims)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, B, rows, columns, heads, h, w, head_dims)
        windows = qkv.shape[1:4]
        q, k, v = qkv.flatten(5, 6).flatten(1, 3)  # each (B * rows * columns, heads, h * w, head_dims)
        mask = None if positions is None else positions.mask(q, (height, width))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x.unflatten(2, (height, width)).unflatten(0, windows)  # (B, rows, columns, heads, h, w, head_dims)
        return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def split_whole(x: Tensor, dim: int, size: int) -> list[Tensor]:
    """Split an axis into the part that ``size`` divides and what is left; neither is empty."""
    parts = x.tensor_split([x.shape[dim] // size * size], dim)
    return [part for part in parts if part.shape[dim]]


def join(parts: list[Tensor], dim: int) -> Tensor:
    """Put the parts of an axis together again; one part is not copied."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]


class TransformerBlock(BaseModule):
    """Block of stage 3: a pre-norm ViT block (paper, section 3.1) with :class:`WindowAttention`.

    Args:
        embed_dims (int): Number of channels.
        num_heads (int): Number of attention heads.
        mlp_ratio (float): Width of the hidden layer of the MLP, as a multiple of ``embed_dims``. Defaults to 4.
        window_size (int): See :class:`WindowAttention`. Defaults to 0.
        rel_pos (BaseModule, optional): See :class:`WindowAttention`. Defaults to None.
        layer_scale_init_value (float): Initial value of a learnable scale for each channel of both residual branches;
            0 for none. Defaults to 0.
        drop_path_rate (float): Stochastic depth rate of both residual branches. Defaults to 0.
        norm_cfg (dict): Norm layers. Defaults to ``dict(type='LN', eps=1e-6)``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4,
        window_size: int = 0,
        rel_pos: BaseModule | None = None,
        layer_scale_init_value: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
    ) -> None:
        super().__init__()
        branch = dict(
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            layer_scale_init_value=layer_scale_init_value,
        )
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = WindowAttention(embed_dims, num_heads, window_size, rel_pos, **branch)
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = FFN(embed_dims, round(embed_dims * mlp_ratio), act_cfg=dict(type='GELU'), **branch)

    def forward(self, x: Tensor, grid: tuple[int, int], positions: TableBias | DecomposedBias | None = None) -> Tensor:
        """Apply the block; see :meth:`WindowAttention.forward` for the arguments.

        Returns:
            Tensor: Shape (B, H * W, C).
        """
        x = x + self.attn(self.ln1(x), grid, positions)
        return self.ffn(self.ln2(x), identity=x)
