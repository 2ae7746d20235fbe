import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor

from .relative_position import DecomposedBias, TableBias


class WindowAttention(MultiheadAttention):
    """Multi-head attention over a whole map or within windows, with relative positions or without.

    By default, a window at the lower or right edge is as large as what is left of the map: the result is that of a
    padded window in which padding is masked, for less work.

    Args:
        embed_dims (int): Number of channels.
        num_heads (int): Number of heads.
        window_size (int): Edge of the windows, in tokens; 0 for attention over the whole map. Defaults to 0.
        rel_pos (BaseModule, optional): Relative positions of this layer alone. Defaults to None.
        pad_windows (bool): Whether the map is padded below and to the right, with tokens of zeros, until the windows
            divide it, and padding is attended to, as in detectron2's ViTDet. As keys and values, padded tokens are the
            bias of ``qkv``. Defaults to False.
        **kwargs: Arguments of mmpretrain's ``MultiheadAttention``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 0,
        rel_pos: BaseModule | None = None,
        pad_windows: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(embed_dims, num_heads, **kwargs)
        self.window_size = window_size
        self.rel_pos = rel_pos
        self.pad_windows = pad_windows

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
        if self.window_size:
            x = x.unflatten(1, grid)
            if self.pad_windows:
                bottom, right = (-length % self.window_size for length in grid)
                x = F.pad(x, (0, 0, 0, right, 0, bottom))
            x = self._attend_in_windows(self._to_qkv(x), positions)[:, : grid[0], : grid[1]].flatten(1, 2)
        else:
            x = self._attend(self._to_qkv(x), grid, positions)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))

    def _to_qkv(self, x: Tensor) -> Tensor:
        """Queries, keys and values of tokens of shape (\\*, C), shape (\\*, 3, heads, head_dims)."""
        return self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dims))

    def _attend_in_windows(self, qkv: Tensor, positions: TableBias | DecomposedBias | None) -> Tensor:
        """Attend within the windows of a map.

        The map falls into up to four parts: that which the windows divide, and what is left below, to the right and in
        the corner. The windows of a part are all equally large.

        Args:
            qkv (Tensor): Shape (B, H, W, 3, heads, head_dims).
            positions (TableBias | DecomposedBias, optional): Relative positions in a whole window.

        Returns:
            Tensor: Shape (B, H, W, heads * head_dims).
        """
        rows = []
        for row in split_whole(qkv, 1, self.window_size):
            parts = []
            for part in split_whole(row, 2, self.window_size):
                height, width = (min(self.window_size, length) for length in part.shape[1:3])
                # (B, rows, h, columns, w, 3, heads, head_dims) -> (B, rows, columns, h, w, 3, heads, head_dims)
                windows = part.unflatten(2, (-1, width)).unflatten(1, (-1, height)).transpose(2, 3)
                out = self._attend(windows.flatten(3, 4).flatten(0, 2), (height, width), positions)
                out = out.unflatten(1, (height, width)).unflatten(0, windows.shape[:3]).transpose(2, 3)
                parts.append(out.flatten(3, 4).flatten(1, 2))
            rows.append(join(parts, 2))
        return join(rows, 1)

    def _attend(self, qkv: Tensor, window: tuple[int, int], positions: TableBias | DecomposedBias | None) -> Tensor:
        """Attend within windows of one size.

        Args:
            qkv (Tensor): Shape (N, h * w, 3, heads, head_dims).
            window (tuple[int, int]): h and w.
            positions (TableBias | DecomposedBias, optional): Relative positions, in windows at least as large.

        Returns:
            Tensor: Shape (N, h * w, heads * head_dims).
        """
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, h * w, head_dims)
        mask = None if positions is None else positions.mask(q, window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def split_whole(x: Tensor, dim: int, size: int) -> list[Tensor]:
    """Split an axis into the part that ``size`` divides and what is left; neither is empty."""
    parts = x.tensor_split([x.shape[dim] // size * size], dim)
    return [part for part in parts if part.shape[dim]]


def join(parts: list[Tensor], dim: int) -> Tensor:
    """Put the parts of an axis together again; one part is not copied."""
    return torch.cat(parts, dim) if len(parts) > 1 else parts[0]
