import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class PatchConv2d(nn.Conv2d):
    """Convolution whose stride is its kernel size, on channels-last maps, as one matrix product.

    The windows of such a convolution do not overlap, so it is a linear layer on flattened patches. That holds for a
    whole map as for a tile cut out of one, and needs no change of layout. A 1x1 convolution is the case
    ``kernel_size=1``. The parameters are those of ``nn.Conv2d``, shapes and default initialisation included.

    Args:
        in_channels (int): Number of input channels.
        out_channels (int): Number of output channels.
        kernel_size (int): Edge of a patch, in positions of the input. Defaults to 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x (Tensor): Maps of shape (\\*, H, W, C_in), with any leading axes; the kernel size divides H and W.

        Returns:
            Tensor: Maps of shape (\\*, H / k, W / k, C_out).
        """
        k = self.kernel_size[0]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (C_out, k * k * C_in)
        return F.linear(space_to_channels(x, k), weight, self.bias)


def space_to_channels(x: Tensor, size: int) -> Tensor:
    """Move each ``size`` x ``size`` patch of a map into the channel axis, in the order (row, column, channel).

    Args:
        x (Tensor): Maps of shape (\\*, H, W, C), with any leading axes.
        size (int): Edge of a patch, in positions; divides H and W.

    Returns:
        Tensor: Maps of shape (\\*, H / size, W / size, size * size * C).
    """
    if size == 1:
        return x
    *lead, height, width, channels = x.shape
    x = x.reshape(*lead, height // size, size, width // size, size, channels)
    x = x.transpose(-4, -3)  # (*, H / size, W / size, size, size, C)
    return x.flatten(-3)


class PatchEmbed(nn.Module):
    """What opens a stage: a patch convolution, LayerNorm over channels and GELU (paper, section 3.1).

    Args:
        in_channels (int): Number of input channels.
        embed_dims (int): Width of the stage.
        patch_size (int): Edge of a patch, in positions of the input.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.projection = PatchConv2d(in_channels, embed_dims, patch_size)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Embed patches.

        Args:
            x (Tensor): Maps of shape (\\*, H, W, C_in), with any leading axes.

        Returns:
            Tensor: Maps of shape (\\*, H / patch_size, W / patch_size, embed_dims).
        """
        return F.gelu(self.norm(self.projection(x)))


def to_maps(x: Tensor, tubelet_size: int = 1) -> Tensor:
    """Bring images or clips, as they come in, into the layout of maps.

    Args:
        x (Tensor): Images of shape (B, C, H, W), or clips of shape (B, C, T, H, W).
        tubelet_size (int): Frames that become one, in the channel axis in the order (frame, channel); divides T.
            Defaults to 1.

    Returns:
        Tensor: Maps of shape (B, H, W, C), or (B, T / tubelet_size, H, W, tubelet_size * C).
    """
    x = x.movedim(1, -1)
    if tubelet_size == 1:
        return x
    x = x.unflatten(1, (-1, tubelet_size))  # (B, T / tubelet_size, tubelet_size, H, W, C)
    return x.movedim(2, -2).flatten(-2)


def from_maps(maps: Tensor, tubelet_size: int = 1) -> Tensor:
    """Bring maps back into the layout of images or clips: the inverse of :func:`to_maps`.

    Args:
        maps (Tensor): Shape (B, H, W, C), or (B, T, H, W, tubelet_size * C).
        tubelet_size (int): Frames that are in the channel axis. Defaults to 1.

    Returns:
        Tensor: Images of shape (B, C, H, W), or clips of shape (B, C, T * tubelet_size, H, W).
    """
    if tubelet_size > 1:
        maps = maps.unflatten(-1, (tubelet_size, -1)).movedim(-2, 2).flatten(1, 2)
    return maps.movedim(-1, 1)


def cut_tiles(x: Tensor, size: int) -> Tensor:
    """Cut maps into square tiles; of maps with a time axis, into tubes, which are tiles with a time axis.

    Args:
        x (Tensor): Maps of shape (B, H, W, C) or (B, T, H, W, C).
        size (int): Edge of a tile, in positions; divides H and W.

    Returns:
        Tensor: Tiles of shape (B, L, size, size, C) or (B, L, T, size, size, C) in row-major order, L = H * W / size².
    """
    tiles = space_to_channels(x, size).flatten(-3, -2).movedim(-2, 1)  # (B, L, [T,] size * size * C)
    return tiles.unflatten(-1, (size, size, x.shape[-1]))


def take_blocks(x: Tensor, ids: Tensor) -> Tensor:
    """Take some blocks of each image, once for each of its masks.

    Args:
        x (Tensor): Something of every block, shape (images, L, \\*).
        ids (Tensor): Blocks to take, shape (B, n), int64, with as many rows for each image, one after the other.

    Returns:
        Tensor: Shape (B, n, \\*).
    """
    index = ids.reshape(len(x), -1, *(1 for _ in x.shape[2:]))
    return x.take_along_dim(index, 1).reshape(*ids.shape, *x.shape[2:])


def join_tiles(tiles: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put tiles back into maps: the inverse of :func:`cut_tiles`.

    Args:
        tiles (Tensor): Tiles of shape (B, L, size, size, C) or (B, L, T, size, size, C) in row-major order.
        grid (tuple[int, int]): Rows and columns of tiles, their product L.

    Returns:
        Tensor: Maps of shape (B, grid[0] * size, grid[1] * size, C), or (B, T, grid[0] * size, grid[1] * size, C).
    """
    x = tiles.movedim(1, -4).unflatten(-4, grid).transpose(-4, -3)  # (B, [T,] rows, size, columns, size, C)
    return x.flatten(-3, -2).flatten(-4, -3)
