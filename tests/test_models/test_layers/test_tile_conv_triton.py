"""The kernels against float64, on a GPU where there is one and in Triton's interpreter otherwise."""

import os
import subprocess
import sys

import pytest
import torch

from mmconvmae.models.layers import TileIndex
from mmconvmae.models.layers.tile_conv import tile_conv2d

pytest.importorskip('triton', reason='Triton is not installed')
if not hasattr(torch.library, 'custom_op'):
    pytest.skip('PyTorch before 2.4 has no custom operators in Python', allow_module_level=True)
from mmconvmae.models.layers.tile_conv_triton import tile_conv2d_triton

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
runs_kernels = pytest.mark.skipif(
    DEVICE == 'cpu' and not INTERPRETED, reason='no GPU; test_in_the_interpreter runs it in another process'
)


@pytest.mark.skipif(DEVICE == 'cuda' or INTERPRETED, reason='the kernels run in this process')
def test_in_the_interpreter():
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', __file__],
        env=dict(os.environ, TRITON_INTERPRET='1'),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and ' passed' in result.stdout, result.stdout


def make(kernel_size, size, grid, dtype, channels=20):
    torch.manual_seed(0)
    ids = torch.stack([torch.randperm(grid[0] * grid[1])[:4] for _ in range(2)])
    x = torch.randn(2, 4, size, size, channels)
    weight, bias = torch.randn(channels, 1, kernel_size, kernel_size), torch.randn(channels)
    return x.to(DEVICE, dtype), weight.to(DEVICE), bias.to(DEVICE), TileIndex.from_ids(ids.to(DEVICE), grid)


def outputs_and_grads(function, tensors):
    tensors = [tensor.requires_grad_() for tensor in tensors]
    out = function(*tensors)
    torch.manual_seed(1)
    upstream = torch.randn(out.shape).to(out)
    return [out.detach(), *torch.autograd.grad(out, tensors, upstream)]


@runs_kernels
@pytest.mark.parametrize(
    ('kernel_size', 'size', 'dtype'),
    [
        *((kernel_size, size, torch.float32) for kernel_size, size in ((3, 1), (3, 4), (5, 2), (5, 3), (9, 2))),
        (5, 4, torch.bfloat16),
        (5, 4, torch.float16),
    ],
)
def test_equals_float64(kernel_size, size, dtype):
    grid = (3, 5)
    x, weight, bias, tiles = make(kernel_size, size, grid, dtype)
    outputs = outputs_and_grads(
        lambda x, weight, bias: tile_conv2d_triton(x, weight, bias, tiles.ids, tiles.slots, grid[1]), (x, weight, bias)
    )
    double = [tensor.detach().double().cpu() for tensor in (x, weight, bias)]
    on_cpu = TileIndex.from_ids(tiles.ids.cpu(), grid)
    expected = outputs_and_grads(lambda *tensors: tile_conv2d(*tensors, on_cpu), double)
    assert outputs[0].dtype == outputs[1].dtype == dtype
    for ours, theirs in zip(outputs, expected):
        # rounded once, to the type of the output, from sums in float32; the upstream gradient differs by rounding too
        tolerance = 4 * torch.finfo(dtype).eps
        assert (ours.double().cpu() - theirs).abs().max() <= max(tolerance, 1e-5) * theirs.abs().max()


@runs_kernels
@pytest.mark.parametrize(('kernel', 'size', 'frames'), [((3, 3), 2, 3), ((5, 3), 1, 2), ((1, 5), 2, 2)])
def test_time_axis_equals_float64(kernel, size, frames):
    torch.manual_seed(0)
    temporal_kernel_size, kernel_size = kernel
    tiles = TileIndex.from_ids(torch.randperm(6)[None, :3].to(DEVICE), (2, 3))
    x = torch.randn(1, 3, frames, size, size, 20, device=DEVICE)
    weight = torch.randn(20, 1, temporal_kernel_size, kernel_size, kernel_size, device=DEVICE)
    tensors = x, weight, torch.randn(20, device=DEVICE)
    outputs = outputs_and_grads(lambda *tensors: tile_conv2d_triton(*tensors, tiles.ids, tiles.slots, 3), tensors)
    double = [tensor.detach().double().cpu() for tensor in tensors]
    on_cpu = TileIndex.from_ids(tiles.ids.cpu(), (2, 3))
    for ours, theirs in zip(outputs, outputs_and_grads(lambda *tensors: tile_conv2d(*tensors, on_cpu), double)):
        assert (ours.double().cpu() - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@runs_kernels
def test_is_deterministic():
    x, weight, bias, tiles = make(5, 4, (3, 5), torch.float32)

    def run():
        return outputs_and_grads(
            lambda *tensors: tile_conv2d_triton(*tensors, tiles.ids, tiles.slots, 5), (x, weight, bias)
        )

    for first, second in zip(run(), run()):
        assert torch.equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU to run on')
def test_modules_use_it_on_a_gpu():
    x, weight, bias, tiles = make(5, 4, (3, 5), torch.float32)
    expected = tile_conv2d_triton(x, weight, bias, tiles.ids, tiles.slots, 5)
    assert torch.equal(tile_conv2d(x, weight, bias, tiles), expected)
