from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .patch_embed import cut_tiles, gather_tiles, join_tiles

try:
    from .tile_conv_triton import tile_conv2d_triton
except ImportError:  # no Triton: PyTorch's operators do the same
    tile_conv2d_triton = None


@dataclass(frozen=True)
class TileIndex:
    """Where tiles sit in the maps they were cut from.

    Args:
        ids (Tensor): Row-major place of each tile on the grid, shape (B, N), int64, no place twice in an image.
        slots (Tensor): The inverse: which tile sits at each place, or -1, shape (B, rows * columns), int32.
        grid (tuple[int, int]): Rows and columns of tiles in a map.
    """

    ids: Tensor
    slots: Tensor
    grid: tuple[int, int]

    @classmethod
    def from_ids(cls, ids: Tensor, grid: tuple[int, int]) -> 'TileIndex':
        """Make the index of tiles by their places.

        Args:
            ids (Tensor): Row-major place of each tile on the grid, shape (B, N), int64, no place twice in an image.
            grid (tuple[int, int]): Rows and columns of tiles in a map.

        Returns:
            TileIndex: The index.
        """
        slots = torch.full((len(ids), grid[0] * grid[1]), -1, dtype=torch.int32, device=ids.device)
        order = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device).expand_as(ids)
        return cls(ids, slots.scatter(1, ids, order), grid)


def tile_conv2d(x: Tensor, weight: Tensor, bias: Tensor, tiles: TileIndex) -> Tensor:
    """Depthwise convolution of maps of which only some tiles exist.

    What it computes: lay the tiles on maps of zeros, convolve the maps with stride 1 and zero padding that keeps their
    size, and take the same tiles out again.

    On CUDA one Triton kernel does so without the maps, looking neighbours up in the index, and is deterministic; it
    accumulates in float32. Elsewhere PyTorch's operators do, maps and all.

    Args:
        x (Tensor): Tiles of shape (B, N, t, t, C).
        weight (Tensor): Kernels of shape (C, 1, k, k), k odd; wider than a tile if wanted.
        bias (Tensor): Shape (C,).
        tiles (TileIndex): Where the tiles sit.

    Returns:
        Tensor: Shape (B, N, t, t, C).
    """
    if x.is_cuda and tile_conv2d_triton is not None:
        return tile_conv2d_triton(x, weight, bias, tiles.ids, tiles.slots, tiles.grid[1])
    size = x.shape[2]
    maps = x.new_zeros(len(x), tiles.grid[0] * tiles.grid[1], *x.shape[2:])
    index = tiles.ids.view(*tiles.ids.shape, 1, 1, 1).expand_as(x)
    maps = join_tiles(maps.scatter(1, index, x), tiles.grid)  # (B, H, W, C)
    return gather_tiles(cut_tiles(conv_channels_last(maps, weight, bias), size), tiles.ids)


def conv_channels_last(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution of maps of shape (B, H, W, C), with zero padding that keeps their size."""
    x = x.permute(0, 3, 1, 2)  # (B, C, H, W), a view
    x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))
    return x.permute(0, 2, 3, 1)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with zero padding, on channels-last maps or on tiles cut out of them.

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
            Tensor: The same shape as ``x``; of tiles see :func:`tile_conv2d`.
        """
        if tiles is None:
            return conv_channels_last(x, self.weight, self.bias)
        return tile_conv2d(x, self.weight, self.bias, tiles)
