from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from .capture import captures_graph
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
            query (Tensor): As for :class:`DecomposedBias`, which multiplies it; a table is the same for all queries.
            window (tuple[int, int]): Rows and columns of the windows, at most h and w.

        Returns:
            Tensor: Shape (1, heads, rows * columns, rows * columns).
        """
        rows, columns = window
        return self.bias[None, :, :rows, :columns, :rows, :columns].flatten(4, 5).flatten(2, 3)


class RelativePositionBias(GridEmbedding):
    """A table with a learnable number for each head and each offset between query and key, zero at the start.

    The row for query (yq, xq) and key (yk, xk) is ``(yq - yk + h - 1) * (2 * w - 1) + (xq - xk + w - 1)``. Where
    the table gets no gradient, the last bias made of it is kept.

    Args:
        window (tuple[int, int]): Height and width, h and w, of the usual window, in tokens. For another window the
            table is resized as a position embedding is.
        num_heads (int): Number of attention heads.
    """

    def __init__(self, window: tuple[int, int], num_heads: int) -> None:
        offsets = (2 * window[0] - 1, 2 * window[1] - 1)
        super().__init__(torch.zeros(offsets[0] * offsets[1], num_heads), offsets)
        self._kept_key, self._kept = None, None

    def forward(self, window: tuple[int, int]) -> TableBias:
        """Spread the table over the pairs of positions of a window.

        Args:
            window (tuple[int, int]): Height and width of the window, in tokens.

        Returns:
            TableBias: With a bias of shape (heads, h, w, h, w).
        """
        if captures_graph() or (torch.is_grad_enabled() and self.weight.requires_grad):
            return self._spread(window)
        weight = self.weight
        key = (window, id(weight), weight._version, weight.device, in_autocast_type(weight[:0]).dtype)
        if key != self._kept_key:
            self._kept_key, self._kept = key, self._spread(window)
        return self._kept

    def train(self, mode: bool = True) -> 'RelativePositionBias':
        """Set the training mode and forget the kept bias.

        Whatever exchanges weights between training and evaluation, such as mmengine's EMAHook, may leave no trace in
        their version.
        """
        self._kept_key, self._kept = None, None
        return super().train(mode)

    def _spread(self, window: tuple[int, int]) -> TableBias:
        height, width = window
        offsets = (2 * height - 1, 2 * width - 1)
        table = in_autocast_type(super().forward(offsets)).reshape(*offsets, -1).permute(2, 0, 1)
        # Of the 17 million pairs at 64 x 64 tokens no index is made: that of rows and that of columns broadcast.
        rows = offset_index(height, table.device)[:, None, :, None]
        columns = offset_index(width, table.device)[None, :, None, :]
        return TableBias(table[:, rows, columns])


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
        by_row = multiply_lines(query, self.rows[:rows, :rows])  # (N, heads, rows, columns, the key's row)
        by_column = multiply_lines(query.transpose(2, 3), self.columns[:columns, :columns]).transpose(2, 3)
        # In the order of the axes, so that the much larger sum need not be copied to be flattened.
        by_row, by_column = by_row.contiguous(), by_column.contiguous()
        return (by_row[..., :, None] + by_column[..., None, :]).flatten(4, 5).flatten(2, 3)


def multiply_lines(query: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each line of queries with the vectors of that line.

    It is ``einsum('nhyxd,ykd->nhyxk')``, which an exported graph binds to the number of images.

    Args:
        query (Tensor): Shape (N, heads, lines, length, head_dims).
        vectors (Tensor): Shape (lines, keys, head_dims).

    Returns:
        Tensor: Shape (N, heads, lines, length, keys).
    """
    by_line = query.permute(2, 0, 1, 3, 4)  # (lines, N, heads, length, head_dims)
    out = torch.bmm(by_line.flatten(1, 3), vectors.mT)
    return out.unflatten(1, by_line.shape[1:4]).permute(1, 2, 0, 3, 4)


class DecomposedRelativePosition(BaseModule):
    """A learnable vector for each offset of rows and one for each of columns, with which the query is multiplied.

    As in ViTDet (`Exploring Plain Vision Transformer Backbones for Object Detection
    <https://arxiv.org/abs/2203.16527>`_, section 4.1); zero at the start, the same for all heads.

    Args:
        window (tuple[int, int]): Height and width of the usual window, in tokens. For another window the vectors are
            interpolated linearly.
        head_dims (int): Width of a head.
    """

    def __init__(self, window: tuple[int, int], head_dims: int) -> None:
        super().__init__()
        self.rows, self.columns = (
            GridEmbedding(torch.zeros(2 * edge - 1, head_dims), (2 * edge - 1, 1), mode='bilinear') for edge in window
        )

    def forward(self, window: tuple[int, int]) -> DecomposedBias:
        """Spread the vectors over the pairs of rows, and of columns, of a window.

        Args:
            window (tuple[int, int]): Height and width of the window, in tokens.

        Returns:
            DecomposedBias: With vectors of shapes (h, h, head_dims) and (w, w, head_dims).
        """
        spread = []
        for axis, edge in zip((self.rows, self.columns), window):
            vectors = in_autocast_type(axis((2 * edge - 1, 1)))  # (2 * edge - 1, head_dims)
            spread.append(vectors[offset_index(edge, vectors.device)])
        return DecomposedBias(*spread)


def offset_index(length: int, device: torch.device) -> Tensor:
    """Where the offset between two positions of an axis stands among all of them, from -(length - 1) on.

    Args:
        length (int): Number of positions.
        device (torch.device): Device of the index.

    Returns:
        Tensor: Shape (length, length), int64: the query's position, then the key's.
    """
    positions = torch.arange(length, device=device)
    return positions[:, None] - positions + length - 1
