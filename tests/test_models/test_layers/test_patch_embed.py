import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import PatchConv2d, cut_tiles, join_tiles


@pytest.mark.parametrize('kernel_size', [1, 2, 4])
def test_patch_conv_equals_conv2d(kernel_size):
    conv = PatchConv2d(3, 8, kernel_size)
    x = torch.randn(2, 8, 12, 3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, stride=kernel_size).permute(0, 2, 3, 1)
    torch.testing.assert_close(conv(x), expected)


def test_patch_conv_takes_leading_axes():
    conv = PatchConv2d(3, 8, 2)
    x = torch.randn(2, 5, 4, 4, 3)
    torch.testing.assert_close(conv(x)[1, 3], conv(x[1, 3]))


def test_cut_tiles_takes_tiles_row_by_row():
    x = torch.randn(2, 6, 9, 5)
    tiles = cut_tiles(x, 3)
    assert tiles.shape == (2, 6, 3, 3, 5)
    torch.testing.assert_close(tiles[:, 4], x[:, 3:6, 3:6])
    torch.testing.assert_close(join_tiles(tiles, (2, 3)), x)
