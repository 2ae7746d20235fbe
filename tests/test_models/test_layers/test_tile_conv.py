import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import DepthwiseConv2d, DepthwiseConv3d, TileIndex


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


def dense_reference_3d(conv, x, tiles):
    """The same with a time axis, which is never masked."""
    frames, size = x.shape[2:4]
    rows, columns = tiles.grid
    maps = torch.zeros(len(x), x.shape[-1], frames, rows * size, columns * size, dtype=x.dtype)
    places = [
        (b, n, i // columns * size, i % columns * size) for b, ids in enumerate(tiles.ids) for n, i in enumerate(ids)
    ]
    for b, n, top, left in places:
        maps[b, :, :, top : top + size, left : left + size] = x[b, n].permute(3, 0, 1, 2)
    padding = [length // 2 for length in conv.kernel_size]
    maps = F.conv3d(maps, conv.weight, conv.bias, padding=padding, groups=len(conv.weight))
    out = torch.empty_like(x)
    for b, n, top, left in places:
        out[b, n] = maps[b, :, :, top : top + size, left : left + size].permute(1, 2, 3, 0)
    return out


@pytest.mark.parametrize('temporal_kernel_size', [1, 3, 5])
@pytest.mark.parametrize(('kernel_size', 'size', 'frames'), [(5, 4, 3), (5, 2, 8), (3, 1, 1), (9, 2, 2)])
def test_tubes_equal_dense_maps(temporal_kernel_size, kernel_size, size, frames):
    torch.manual_seed(0)
    grid = (3, 5)
    conv = DepthwiseConv3d(6, kernel_size, temporal_kernel_size).double()
    tiles = TileIndex.from_ids(torch.stack([torch.randperm(15)[:5] for _ in range(3)]), grid)
    x = torch.randn(3, 5, frames, size, size, 6, dtype=torch.float64, requires_grad=True)
    outputs = conv(x, tiles), dense_reference_3d(conv, x, tiles)
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(x)
    grads = [torch.autograd.grad(out, (x, conv.weight, conv.bias), upstream) for out in outputs]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('temporal_kernel_size', [1, 3, 5])
@pytest.mark.parametrize('shape', [(2, 4, 7, 9), (1, 1, 8, 4), (2, 3, 6, 4)])
def test_maps_in_time_equal_conv3d(temporal_kernel_size, shape):
    torch.manual_seed(0)
    conv = DepthwiseConv3d(6, 5, temporal_kernel_size).double()
    x = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    padding = (temporal_kernel_size // 2, 2, 2)
    expected = F.conv3d(x.permute(0, 4, 1, 2, 3), conv.weight, conv.bias, padding=padding, groups=6)
    outputs = conv(x), expected.permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(*outputs)
    upstream = torch.randn_like(x)
    grads = [torch.autograd.grad(out, (x, conv.weight, conv.bias), upstream) for out in outputs]
    torch.testing.assert_close(*grads)


def test_bfloat16_autocast_in_time():
    """Maps of float32, as the first block has them, and of bfloat16."""
    torch.manual_seed(0)
    conv, x = DepthwiseConv3d(6, 5, 3), torch.randn(2, 3, 8, 8, 6, requires_grad=True)
    expected = torch.autograd.grad(conv(x).square().sum(), (x, conv.weight, conv.bias))
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast('cpu', torch.bfloat16):
            out = conv(x.to(dtype))
        assert out.dtype == torch.bfloat16
        for ours, theirs in zip(torch.autograd.grad(out.square().sum(), (x, conv.weight, conv.bias)), expected):
            assert ours.dtype == torch.float32
            assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


@pytest.mark.parametrize('lengths', [(4, 5), (5, 2)])
def test_even_kernels_are_refused(lengths):
    with pytest.raises(ValueError, match=r'`kernel_size` is \d and `temporal_kernel_size` \d; .* needs odd lengths'):
        DepthwiseConv3d(6, *lengths)
