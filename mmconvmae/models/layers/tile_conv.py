from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .depthwise_conv3d import depthwise_conv3d

try:
    from .tile_conv_triton import tile_conv2d_triton
except ImportError:  # no Triton, or PyTorch before 2.4: its operators do the same
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

    def split(self, num_images: int) -> list['TileIndex']:
        """Split the index by images, as :func:`torch.split` does a tensor.

        Args:
            num_images (int): Images in each part; the last may have fewer.

        Returns:
            list[TileIndex]: The parts.
        """
        parts = zip(self.ids.split(num_images), self.slots.split(num_images))
        return [TileIndex(ids, slots, self.grid) for ids, slots in parts]

    def windows(self, size: int, radius: int, frames: int = 1) -> Tensor:
        """Where to find the positions of each tile and of a border around it among the positions of all tiles.

        Args:
            size (int): Edge of a tile, t, in positions.
            radius (int): Width of the border.
            frames (int): Frames of a tile. Defaults to 1.

        Returns:
            Tensor: For each position of each window its place in the B * N * frames * t * t positions, or that number
            itself where there is no tile; shape (B * N, frames, t + 2 * radius, t + 2 * radius), int64.
        """
        batch, num_tiles = self.ids.shape
        rows, columns = self.grid
        offsets = torch.arange(-radius, size + radius, device=self.ids.device)
        row = (self.ids // columns * size)[..., None, None] + offsets[:, None]  # (B, N, e, 1)
        column = (self.ids % columns * size)[..., None, None] + offsets  # (B, N, 1, e)
        inside = (row >= 0) & (row < rows * size) & (column >= 0) & (column < columns * size)
        place = (row // size * columns + column // size).where(inside, 0)  # (B, N, e, e)
        slot = self.slots.gather(1, place.flatten(1)).view_as(place).long()
        image = torch.arange(batch, device=self.ids.device).view(-1, 1, 1, 1)
        frame = torch.arange(frames, device=self.ids.device).view(-1, 1, 1)
        tile = (image * num_tiles + slot)[:, :, None]  # (B, N, 1, e, e)
        position = (((tile * frames + frame) * size) + (row % size)[:, :, None]) * size + (column % size)[:, :, None]
        exists = (inside & (slot >= 0))[:, :, None]
        return position.where(exists, batch * num_tiles * frames * size * size).flatten(0, 1)


def tile_conv2d(x: Tensor, weight: Tensor, bias: Tensor, tiles: TileIndex) -> Tensor:
    """Depthwise convolution of maps of which only some tiles exist.

    What it computes: lay the tiles on maps of zeros, convolve the maps with stride 1 and zero padding that keeps their
    size, and take the same tiles out again. No such maps are made.

    On CUDA it is a Triton kernel, which looks neighbours up in the index and accumulates in float32; elsewhere each
    tile is gathered with the border that the kernel reaches, and PyTorch's convolution does the rest. Both are
    deterministic, but for CUDA without Triton, where the gradient of the gather adds in no fixed order.

    Tiles are missing in space alone: with a time axis a tile has every frame, and the convolution is one in three
    dimensions, which may be longer than the clip.

    Args:
        x (Tensor): Tiles of shape (B, N, t, t, C) or (B, N, T, t, t, C).
        weight (Tensor): Kernels of shape (C, 1, k, k), k odd; wider than a tile if wanted. With a time axis,
            (C, 1, kt, k, k), kt odd.
        bias (Tensor): Shape (C,).
        tiles (TileIndex): Where the tiles sit.

    Returns:
        Tensor: The same shape as ``x``.
    """
    if x.is_cuda and tile_conv2d_triton is not None:
        return tile_conv2d_triton(x, weight, bias, tiles.ids, tiles.slots, tiles.grid[1])
    frames = x.shape[2] if x.dim() == 6 else 1
    windows = tiles.windows(x.shape[-2], weight.shape[-1] // 2, frames)  # (B * N, frames, e, e)
    if x.is_meta:  # where PyTorch before 2.4 has no checkpointing, and nothing is kept
        out = _convolve_windows(x, weight, windows)
    else:
        # The windows are several times as large as the tiles, and gathered in no time: not kept for the backward pass.
        out = checkpoint(_convolve_windows, x, weight, windows, use_reentrant=False, preserve_rng_state=False)
    # Of a bias within the convolution the gradient is several times as slow as a sum.
    return out + bias.to(out.dtype)


def _convolve_windows(x: Tensor, weight: Tensor, windows: Tensor) -> Tensor:
    """Gather each tile with its border, and convolve; the result has the shape of ``x``, (B, N, [T,] t, t, C)."""
    positions = torch.cat([x.flatten(0, -2), x.new_zeros(1, x.shape[-1])])  # (B * N * T * t * t + 1, C), the last is 0
    patches = positions.index_select(0, windows.flatten()).view(*windows.shape, -1)  # (B * N, T, e, e, C)
    if weight.dim() == 4:
        out = F.conv2d(patches.squeeze(1).permute(0, 3, 1, 2), weight, groups=len(weight)).permute(0, 2, 3, 1)
    else:
        out = depthwise_conv3d(patches, weight, border=0)
    return out.reshape(x.shape)


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with zero padding, on channels-last maps or on tiles cut out of them.

    Args:
        channels (int): Number of channels.
        kernel_size (int): Edge of the kernel, odd.

    Raises:
        ValueError: If ``kernel_size`` is even.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f'`kernel_size` is {kernel_size}; the depthwise kernel needs an odd edge.')
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, x: Tensor, tiles: TileIndex | None = None) -> Tensor:
        """Apply the convolution.

        Args:
            x (Tensor): Maps of shape (B, H, W, C), or tiles of shape (B, N, t, t, C).
            tiles (TileIndex, optional): Where the tiles sit; given exactly when ``x`` is tiles.

        Returns:
            Tensor: The same shape as ``x``; of tiles see :func:`tile_conv2d`.
        """
        if tiles is not None:
            return tile_conv2d(x, self.weight, self.bias, tiles)
        x = x.permute(0, 3, 1, 2)  # (B, C, H, W), a view: channels last in memory
        return super().forward(x).permute(0, 2, 3, 1)


class DepthwiseConv3d(nn.Conv3d):
    """The same with a time axis before rows and columns.

    Args:
        channels (int): Number of channels.
        kernel_size (int): Edge of the kernel in space, odd.
        temporal_kernel_size (int): Its length in time, odd. With 1 each frame is convolved by itself.

    Raises:
        ValueError: If ``kernel_size`` or ``temporal_kernel_size`` is even.
    """

    def __init__(self, channels: int, kernel_size: int, temporal_kernel_size: int) -> None:
        kernel = (temporal_kernel_size, kernel_size, kernel_size)
        if not all(length % 2 for length in kernel):
            raise ValueError(
                f'`kernel_size` is {kernel_size} and `temporal_kernel_size` {temporal_kernel_size}; the depthwise '
                'kernel needs odd lengths.'
            )
        super().__init__(channels, channels, kernel, padding=tuple(n // 2 for n in kernel), groups=channels)

    def forward(self, x: Tensor, tiles: TileIndex | None = None) -> Tensor:
        """Apply the convolution.

        Args:
            x (Tensor): Maps of shape (B, T, H, W, C), or tiles of shape (B, N, T, t, t, C).
            tiles (TileIndex, optional): Where the tiles sit; given exactly when ``x`` is tiles.

        Returns:
            Tensor: The same shape as ``x``; of tiles see :func:`tile_conv2d`.
        """
        if tiles is not None:
            return tile_conv2d(x, self.weight, self.bias, tiles)
        out = depthwise_conv3d(x, self.weight, self.padding[-1])
        return out + self.bias.to(out.dtype)
