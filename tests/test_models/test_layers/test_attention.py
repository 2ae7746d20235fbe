import copy

import pytest
import torch
from reference import window_attention
from reference_detectron2 import Attention, in_windows

from mmconvmae.models.layers import (
    DecomposedRelativePosition,
    RelativePositionBias,
    TransformerBlock,
    WindowAttention,
)

HEADS, DIMS = 2, 8


def randomise(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double().eval()


def reference(attention, x, grid, window, bias_of_head):
    qkv = torch.nn.functional.linear(x, attention.qkv.weight, attention.qkv.bias)
    heads = zip(*(part.chunk(HEADS, -1) for part in qkv.chunk(3, -1)))
    y = [window_attention(q, k, v, grid, window, bias_of_head(head)) for head, (q, k, v) in enumerate(heads)]
    return torch.nn.functional.linear(torch.cat(y, -1), attention.proj.weight, attention.proj.bias)


def table_bias(weight, window):
    h, w = window
    return lambda head: lambda q, dy, dx: weight[(dy + h - 1) * (2 * w - 1) + dx + w - 1, head]


def decomposed_bias(rel_pos, window):
    h, w = window
    rows, columns = rel_pos.rows.weight, rel_pos.columns.weight
    return lambda head: lambda q, dy, dx: q @ rows[dy + h - 1] + q @ columns[dx + w - 1]


# Grids that the windows divide, that they do not, in one direction only, and that are smaller than one.
@pytest.mark.parametrize('grid', [(6, 3), (5, 7), (3, 8), (2, 4), (2, 2)])
@pytest.mark.parametrize('window_size', [0, 3])
@pytest.mark.parametrize('rel_pos', [None, 'table', 'shared', 'decomposed'])
def test_equals_loops_over_windows_and_positions(grid, window_size, rel_pos):
    window = (window_size, window_size) if window_size else grid
    make = dict(table=RelativePositionBias, shared=RelativePositionBias, decomposed=DecomposedRelativePosition)
    positions = make[rel_pos](window, dict(decomposed=DIMS // HEADS).get(rel_pos, HEADS)) if rel_pos else None
    own = None if rel_pos == 'shared' else positions
    attention = randomise(WindowAttention(DIMS, HEADS, window_size, own))
    bias = lambda head: lambda q, dy, dx: 0  # noqa: E731
    shared = None
    if rel_pos is not None:
        randomise(positions)
        bias = decomposed_bias(positions, window) if rel_pos == 'decomposed' else table_bias(positions.weight, window)
    if rel_pos == 'shared':
        shared = positions(window)
    x = torch.randn(2, grid[0] * grid[1], DIMS, dtype=torch.double)
    ours = attention(x, grid, shared)
    expected = reference(attention, x, grid, window, bias)
    torch.testing.assert_close(ours, expected)
    parameters = list(attention.parameters()) + (list(positions.parameters()) if rel_pos == 'shared' else [])
    upstream = torch.randn_like(ours)
    for g, e in zip(
        torch.autograd.grad(ours, parameters, upstream), torch.autograd.grad(expected, parameters, upstream)
    ):
        torch.testing.assert_close(g, e)


# Windows that divide the grid, that do not, and that are larger; the last is the released detector's.
@pytest.mark.parametrize(
    ('images', 'grid', 'size'),
    [(2, (6, 3), 3), (2, (5, 7), 3), (2, (3, 8), 3), (2, (2, 4), 3), (2, (2, 2), 3), (1, (64, 64), 14)],
)
def test_padded_windows_equal_detectron2(images, grid, size):
    theirs = randomise(Attention(DIMS, HEADS, size))
    ours = WindowAttention(
        DIMS, HEADS, size, DecomposedRelativePosition((size, size), DIMS // HEADS), pad_windows=True
    ).double()
    pairs = {
        'qkv.weight': theirs.qkv.weight,
        'qkv.bias': theirs.qkv.bias,
        'proj.weight': theirs.proj.weight,
        'proj.bias': theirs.proj.bias,
        'rel_pos.rows.weight': theirs.rel_pos_h,
        'rel_pos.columns.weight': theirs.rel_pos_w,
    }
    ours.load_state_dict(pairs)
    x = torch.randn(images, grid[0] * grid[1], DIMS, dtype=torch.double)
    out, expected = ours(x, grid), in_windows(x.unflatten(1, grid), size, theirs).flatten(1, 2)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    parameters = dict(ours.named_parameters())
    torch.testing.assert_close(
        torch.autograd.grad(out, [parameters[name] for name in pairs], upstream),
        torch.autograd.grad(expected, list(pairs.values()), upstream),
    )
    # What padding changes: nothing where there is none, and else the windows at the lower and right edge alone.
    ours.pad_windows = False
    touched = ((ours(x, grid) - out).abs().amax((0, 2)) > 1e-9).view(grid)
    whole = tuple(length // size * size for length in grid)
    assert touched.any() == (whole != grid) and not touched[: whole[0], : whole[1]].any()


def test_padded_windows_with_tables():
    """Padding is attended to with the biases of where it lies, as real tokens of zeros would be."""
    attention = randomise(WindowAttention(DIMS, HEADS, 3, RelativePositionBias((3, 3), HEADS), pad_windows=True))
    x = torch.randn(2, 4, 5, DIMS, dtype=torch.double)
    whole = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 2))
    expected = attention(whole.flatten(1, 2), (6, 6)).unflatten(1, (6, 6))[:, :4, :5]
    torch.testing.assert_close(attention(x.flatten(1, 2), (4, 5)), expected.flatten(1, 2))


@pytest.mark.parametrize('make', [RelativePositionBias, DecomposedRelativePosition])
def test_zero_at_the_start(make):
    assert all(not parameter.any() for parameter in make((3, 4), 5).parameters())


def test_table_of_a_larger_window_is_resized():
    small = randomise(RelativePositionBias((3, 3), HEADS))
    maps = small.weight.detach().t().view(1, HEADS, 5, 5)
    table = torch.nn.functional.interpolate(maps, (9, 7), mode='bicubic', align_corners=False)[0].flatten(1).t()
    bias = small((5, 4)).bias
    for yq, xq, yk, xk in ((0, 0, 0, 0), (4, 3, 0, 0), (0, 0, 4, 3), (2, 1, 3, 3)):
        expected = table[(yq - yk + 4) * 7 + xq - xk + 3]
        torch.testing.assert_close(bias[:, yq, xq, yk, xk], expected, rtol=1e-5, atol=1e-5)  # resized as float32


def test_biases_take_the_type_of_autocast():
    tables, vectors = RelativePositionBias((3, 3), HEADS), DecomposedRelativePosition((3, 3), 4)
    with torch.autocast('cpu', torch.bfloat16):
        assert tables((3, 3)).bias.dtype == torch.bfloat16
        assert vectors((3, 3)).rows.dtype == torch.bfloat16
        TransformerBlock(DIMS, HEADS, window_size=2, rel_pos=RelativePositionBias((2, 2), HEADS))(
            torch.randn(1, 15, DIMS), (3, 5)
        ).sum().backward()


def test_layer_scale_multiplies_both_branches():
    block = randomise(TransformerBlock(DIMS, HEADS, layer_scale_init_value=1.0))
    x = torch.randn(2, 6, DIMS, dtype=torch.double)
    y = x + block.attn.gamma1.weight * (block.attn(block.ln1(x), (2, 3)) / block.attn.gamma1.weight)
    out = block(x, (2, 3))
    plain = TransformerBlock(DIMS, HEADS).double().eval()
    plain.load_state_dict(block.state_dict(), strict=False)
    torch.testing.assert_close(plain.attn(x, (2, 3)) * block.attn.gamma1.weight, block.attn(x, (2, 3)))
    torch.testing.assert_close(out, y + block.ffn.gamma2.weight * plain.ffn.layers(plain.ln2(y)))


@pytest.fixture
def table():
    return randomise(RelativePositionBias((3, 3), HEADS)).float()


def test_bias_is_kept_while_nothing_is_trained(table):
    with torch.no_grad():
        kept = table((3, 3)).bias
        assert table((3, 3)).bias is kept
        assert table((2, 4)).bias is not kept  # one at a time: at 64 x 64 tokens it has 0.8 GB
        assert table((3, 3)).bias is not kept
        with torch.autocast('cpu', torch.bfloat16):
            assert table((3, 3)).bias.dtype == torch.bfloat16
        assert table((3, 3)).bias.dtype == torch.float32
    assert table((3, 3)).bias.requires_grad


@pytest.mark.parametrize('change', ['in_place', 'load', 'without_a_trace', 'type', 'copy'])
def test_no_old_bias_is_given(table, change):
    with torch.no_grad():
        old = table((3, 3)).bias.clone()
        if change == 'in_place':
            table.weight.add_(1)
        elif change == 'load':
            table.load_state_dict({'weight': table.weight + 1})
        elif change == 'without_a_trace':
            table.weight.data.add_(1)  # as mmengine's EMAHook does before it calls eval()
            table.eval()
        elif change == 'copy':
            table = copy.deepcopy(table)
            table.weight.add_(1)
        else:
            table.double()
        new = table((3, 3)).bias
        expected = old.double() if change == 'type' else old + 1
        assert new.dtype == expected.dtype
        torch.testing.assert_close(new, expected)
