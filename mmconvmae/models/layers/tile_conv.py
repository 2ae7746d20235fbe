from dataclasses import dataclass

import torch.nn as nn
from torch import Tensor

from .patch_embed import cut_tiles, gather_tiles, join_tiles


@dataclass(frozen=True)
class TileIndex:
    """Where tiles sit in the maps they were cut from.

    Args:
        ids (Tensor): Row-major place of each tile on the grid, shape (B, N), int64, no place twice in an image.
        grid (tuple[int, int]): Rows and columns of tiles in a map.
    """

    ids: Tensor
    grid: tuple[int, int]


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with zero padding on channels-last maps or on tiles cut out of them.

    Args:
        channels (int): Number of channels.
        kernel_size (int): Edge of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor, tiles: TileIndex | None = None) -> Tensor:
        """Apply the convolution.

        Args:
            x (Tensor): Maps of shape (B, H, W, C), or tiles of shape (B, N, t, t, C).
            tiles (TileIndex, optional): Where the tiles sit; given exactly when ``x`` is tiles.

        Returns:
            Tensor: The same shape as ``x``. For tiles: what the convolution of whole maps, zero wherever no tile of
            ``x`` sits, gives at these tiles.
        """
        if tiles is not None:
            return self._forward_tiles(x, tiles)
        x = x.permute(0, 3, 1, 2)  # (B, C, H, W), a view: channels last in memory
        return super().forward(x).permute(0, 2, 3, 1)

    def _forward_tiles(self, x: Tensor, tiles: TileIndex) -> Tensor:
        size = x.shape[2]
        maps = x.new_zeros(len(x), tiles.grid[0] * tiles.grid[1], *x.shape[2:])
        index = tiles.ids.view(*tiles.ids.shape, 1, 1, 1).expand_as(x)
        maps = join_tiles(maps.scatter(1, index, x), tiles.grid)  # (B, H, W, C)
        return gather_tiles(cut_tiles(self(maps), size), tiles.ids)
