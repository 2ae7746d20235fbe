import torch.nn as nn
from mmcv.cnn.bricks import DropPath
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from .patch_embed import PatchConv2d
from .tile_conv import DepthwiseConv2d, DepthwiseConv3d, TileIndex


class ConvBlock(nn.Module):
    """Block of stages 1 and 2: a transformer block with a depthwise convolution for attention (paper, section 3.1).

    Args:
        embed_dims (int): Width of the stage.
        mlp_ratio (float): Width of the hidden layer of the MLP, as a multiple of ``embed_dims``. Defaults to 4.
        kernel_size (int): Edge of the depthwise kernel, odd. Defaults to 5.
        temporal_kernel_size (int, optional): Length of the depthwise kernel in time, odd, for maps with a time axis.
            Defaults to None: there is no time axis.
        drop_path_rate (float): Stochastic depth rate of both residual branches. Defaults to 0.
        norm_cfg (dict): Norm layers. Defaults to ``dict(type='LN', eps=1e-5)``.
    """

    def __init__(
        self,
        embed_dims: int,
        mlp_ratio: float = 4,
        kernel_size: int = 5,
        temporal_kernel_size: int | None = None,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-5),
    ) -> None:
        super().__init__()
        hidden_dims = round(embed_dims * mlp_ratio)
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.conv1 = PatchConv2d(embed_dims, embed_dims)
        if temporal_kernel_size is None:
            self.depthwise_conv = DepthwiseConv2d(embed_dims, kernel_size)
        else:
            self.depthwise_conv = DepthwiseConv3d(embed_dims, kernel_size, temporal_kernel_size)
        self.conv2 = PatchConv2d(embed_dims, embed_dims)
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = nn.Sequential(PatchConv2d(embed_dims, hidden_dims), nn.GELU(), PatchConv2d(hidden_dims, embed_dims))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, visible: Tensor | TileIndex | None = None) -> Tensor:
        """Apply the block.

        Args:
            x (Tensor): Maps of shape (B, H, W, C), or visible tiles of shape (B, N, t, t, C); of clips with a time
                axis, (B, T, H, W, C) or (B, N, T, t, t, C).
            visible (Tensor | TileIndex, optional): What the depthwise convolution may look at. With None: every
                position of the maps. With a tensor of shape (B, [1,] H, W, 1): the positions where it is 1 and not
                those where it is 0 (masked convolution; paper, section 3.2). With a tile index, which says where the
                tiles ``x`` sit: the tiles, and zero in place of those that are missing.

        Returns:
            Tensor: The same shape as ``x``.
        """
        shortcut = x
        x = self.conv1(self.ln1(x))
        if isinstance(visible, TileIndex):
            x = self.depthwise_conv(x, visible)
        elif visible is not None:
            x = self.depthwise_conv(x * visible)
        else:
            x = self.depthwise_conv(x)
        x = shortcut + self.drop_path(self.conv2(x))
        return x + self.drop_path(self.ffn(self.ln2(x)))
