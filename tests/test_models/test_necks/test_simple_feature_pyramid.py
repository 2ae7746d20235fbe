import importlib

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope

from mmconvmae.models import SimpleFeaturePyramid


def upsample(x, weight, bias):
    """A transposed convolution whose kernel is its stride: a 2 x 2 tile from each position."""
    tiles = torch.einsum('bchw,cdij->bdhiwj', x, weight)
    return tiles.flatten(4).flatten(2, 3) + bias.view(-1, 1, 1)


def norm(x, weight, bias):
    """LayerNorm over the channels of each position."""
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    return x * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)


def reference(params, x):
    """Levels of strides 4, 8, 16 and 32 for the parameters in the order of the module."""
    params = iter(params)

    def take(number):
        return [next(params) for _ in range(number)]

    def finish(x):
        for padding in (0, 1):
            (weight,) = take(1)
            x = norm(F.conv2d(x, weight, padding=padding), *take(2))
        return x

    half = F.gelu(norm(upsample(x, *take(2)), *take(2)))
    outs = [finish(upsample(half, *take(2))), finish(upsample(x, *take(2))), finish(x)]
    height, width = (edge // 2 * 2 for edge in x.shape[2:])
    outs.append(finish(x[..., :height, :width].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))))
    assert next(params, None) is None
    return outs


@pytest.mark.parametrize('size', [(4, 6), (5, 7)])
def test_levels_are_those_of_the_reference(build, size):
    neck = build(dict(type='mmconvmae.SimpleFeaturePyramid', in_channels=8, out_channels=6, num_outs=6)).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    outs = neck((torch.zeros(2, 4, 1, 1), x))
    expected = reference(neck.parameters(), x)
    for _ in range(2):
        expected.append(expected[-1][..., ::2, ::2])
    torch.testing.assert_close(outs, tuple(expected))


def test_shapes_of_odd_sizes():
    outs = SimpleFeaturePyramid(8, 6)([torch.randn(1, 8, 11, 15)])
    assert [out.shape[1:] for out in outs] == [(6, 44, 60), (6, 22, 30), (6, 11, 15), (6, 5, 7), (6, 3, 4)]


@pytest.mark.parametrize('channels, out_channels', [(8, 6), (384, 256)])
def test_number_of_parameters(channels, out_channels):
    half, quarter = channels // 2, channels // 4
    rescale = (4 * channels * half + half) + 2 * half + (4 * half * quarter + quarter) + (4 * channels * half + half)
    convs = (quarter + half + 2 * channels) * out_channels + 4 * 9 * out_channels**2
    norms = 4 * 2 * 2 * out_channels
    neck = SimpleFeaturePyramid(channels, out_channels)
    assert sum(param.numel() for param in neck.parameters()) == rescale + convs + norms


def test_every_parameter_and_the_map_have_a_gradient(build):
    neck = build(dict(type='mmconvmae.SimpleFeaturePyramid', in_channels=8, out_channels=6))
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    sum((out * torch.randn_like(out)).sum() for out in neck([x])).backward()
    assert all(param.grad.abs().sum() > 0 for param in (x, *neck.parameters()))


@pytest.mark.parametrize('library', ['mmpretrain', 'mmdet', 'mmseg'])
def test_builds_in_the_scope_of_each_library(library):
    pytest.importorskip(library, reason=f'{library} is not installed')
    if library == 'mmdet':
        pytest.importorskip('mmcv.ops', reason="mmcv has no compiled ops, which mmdet's modules need")
    registry = importlib.import_module(f'{library}.registry').MODELS
    init_default_scope(library)
    neck = registry.build(dict(type='mmconvmae.SimpleFeaturePyramid', in_channels=8, out_channels=6))
    neck.init_weights()
    assert len(neck([torch.randn(1, 8, 2, 2)])) == 5


def test_channels_that_four_does_not_divide():
    with pytest.raises(ValueError, match='`in_channels` is 6; the level of stride 4 needs a multiple of 4'):
        SimpleFeaturePyramid(6)


def test_fewer_than_four_levels():
    with pytest.raises(ValueError, match='`num_outs` is 3; the pyramid has 4 levels or more'):
        SimpleFeaturePyramid(8, num_outs=3)
