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


def cut_tiles(x: Tensor, size: int) -> Tensor:
    """Cut maps into square tiles.

    Args:
        x (Tensor): Maps of shape (B, H, W, C).
        size (int): Edge of a tile, in positions; divides H and W.

    Returns:
        Tensor: Tiles of shape (B, L, size, size, C) in row-major order, L = H * W / size².
    """
    return space_to_channels(x, size).flatten(1, 2).unflatten(-1, (size, size, x.shape[-1]))


def join_tiles(tiles: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put tiles back into maps: the inverse of :func:`cut_tiles`.

    Args:
        tiles (Tensor): Tiles of shape (B, L, size, size, C) in row-major order.
        grid (tuple[int, int]): Rows and columns of tiles, their product L.

    Returns:
        Tensor: Maps of shape (B, grid[0] * size, grid[1] * size, C).
    """
    x = tiles.unflatten(1, grid).transpose(2, 3)  # (B, rows, size, columns, size, C)
    return x.flatten(3, 4).flatten(1, 2)
