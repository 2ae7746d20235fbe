import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import DepthwiseConv2d, TileIndex


def dense_reference(conv, x, tiles):
    """Put tiles on maps of zeros one by one, convolve the maps, cut the tiles out again."""
    size = x.shape[2]
    rows, columns = tiles.grid
    maps = torch.zeros(len(x), x.shape[-1], rows * size, columns * size, dtype=x.dtype)
    places = [
        (b, n, i // columns * size, i % columns * size) for b, ids in enumerate(tiles.ids) for n, i in enumerate(ids)
    ]
    for b, n, top, left in places:
        maps[b, :, top : top + size, left : left + size] = x[b, n].permute(2, 0, 1)
    maps = F.conv2d(maps, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2, groups=len(conv.weight))
    out = torch.empty_like(x)
    for b, n, top, left in places:
        out[b, n] = maps[b, :, top : top + size, left : left + size].permute(1, 2, 0)
    return out


@pytest.mark.parametrize('kernel_size', [3, 5, 9])
@pytest.mark.parametrize('size', [1, 2, 4])
@pytest.mark.parametrize('grid', [(4, 4), (3, 5)])
def test_tiles_equal_dense_maps(kernel_size, size, grid):
    torch.manual_seed(0)
    conv = DepthwiseConv2d(6, kernel_size).double()
    ids = torch.stack([torch.randperm(grid[0] * grid[1])[:5] for _ in range(3)])
    tiles = TileIndex.from_ids(ids, grid)
    x = torch.randn(3, 5, size, size, 6, dtype=torch.float64, requires_grad=True)
    outputs = conv(x, tiles), dense_reference(conv, x, tiles)
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(x)
    grads = [torch.autograd.grad(out, (x, conv.weight, conv.bias), upstream) for out in outputs]
    torch.testing.assert_close(*grads)


def test_maps_equal_conv2d():
    conv = DepthwiseConv2d(6, 5)
    x = torch.randn(2, 7, 9, 6)
    expected = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=2, groups=6)
    torch.testing.assert_close(conv(x), expected.permute(0, 2, 3, 1))
