import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor

from .relative_position import DecomposedBias, TableBias


class WindowAttention(MultiheadAttention):
    """Multi-head attention over a whole map or within windows, with relative positions or without.

    A window at the lower or right edge is as large as what is left of the map: the result is that of a padded window
    in which padding is masked, for less work. With ``pad_windows`` it is padded and not masked, as in detectron2.

    Args:
        embed_dims (int): Number of channels.
        num_heads (int): Number of heads.
        window_size (int): Edge of the windows, in tokens; 0 for attention over the whole map. Defaults to 0.
        rel_pos (BaseModule, optional): Relative positions of this layer alone. Defaults to None.
        pad_windows (bool): Whether the map is padded with zeros, below and to the right, to whole windows, so that each
            place of the padding takes part as a token of zeros. Defaults to False.
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
        self.pad_windows = pad_windows
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
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dims))  # (B, H * W, 3, heads, head_dims)
        if self.window_size:
            qkv = qkv.unflatten(1, grid)  # (B, H, W, 3, heads, head_dims)
            height, width = grid
            if self.pad_windows:
                qkv = self._pad(qkv)
            x = self._attend_in_windows(qkv, positions)[:, :height, :width].flatten(1, 2)
        else:
            x = self._attend(qkv, grid, positions)
        return self.out_drop(self.gamma1(self.proj_drop(self.proj(x))))

    def _pad(self, qkv: Tensor) -> Tensor:
        """Pad a map to whole windows with what a token of zeros has for query, key and value: the bias.

        Args:
            qkv (Tensor): Shape (B, H, W, 3, heads, head_dims).

        Returns:
            Tensor: Shape (B, H', W', 3, heads, head_dims), where the edge of a window divides H' and W'.
        """
        bias = (
            qkv.new_zeros(qkv.shape[3:]) if self.qkv.bias is None else self.qkv.bias.view(qkv.shape[3:]).to(qkv.dtype)
        )
        for dim in (1, 2):
            missing = -qkv.shape[dim] % self.window_size
            if missing:
                shape = list(qkv.shape)
                shape[dim] = missing
                qkv = torch.cat([qkv, bias.expand(shape)], dim)
        return qkv

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
