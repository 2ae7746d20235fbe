import copy

import pytest
import torch
from reference import window_attention

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


def partitioned(attention, x, grid, size):
    """Attention in windows of a map that is padded with zeros, as detectron2 has it, in float64."""
    height, width = grid
    rows, columns = -(-height // size), -(-width // size)
    padded = x.new_zeros(len(x), rows * size, columns * size, DIMS)
    padded[:, :height, :width] = x.view(len(x), height, width, DIMS)
    out = torch.zeros_like(padded)
    offsets = torch.arange(size)[:, None] - torch.arange(size) + size - 1
    by_row, by_column = (axis.weight[offsets] for axis in (attention.rel_pos.rows, attention.rel_pos.columns))
    for row in range(rows):
        for column in range(columns):
            place = (slice(None), slice(row * size, row * size + size), slice(column * size, column * size + size))
            q, k, v = attention.qkv(padded[place]).view(len(x), size, size, 3, HEADS, -1).unbind(3)
            scores = torch.einsum('byxhd,bijhd->bhyxij', q, k) * (DIMS // HEADS) ** -0.5
            scores += torch.einsum('byxhd,yid->bhyxi', q, by_row)[..., None]
            scores += torch.einsum('byxhd,xjd->bhyxj', q, by_column)[..., None, :]
            weights = scores.flatten(4).softmax(-1).view_as(scores)
            out[place] = attention.proj(torch.einsum('bhyxij,bijhd->byxhd', weights, v).flatten(3))
    return out[:, :height, :width].flatten(1, 2)


@pytest.mark.parametrize(('grid', 'size'), [((64, 64), 14), ((6, 3), 3), ((5, 7), 3), ((2, 8), 3), ((2, 2), 3)])
def test_padding_takes_part_in_attention(grid, size):
    attention = WindowAttention(
        DIMS, HEADS, size, DecomposedRelativePosition((size, size), DIMS // HEADS), pad_windows=True
    )
    randomise(attention)
    x = torch.randn(2, grid[0] * grid[1], DIMS, dtype=torch.double)
    out, expected = attention(x, grid), partitioned(attention, x, grid, size)
    torch.testing.assert_close(out, expected)
    parameters = list(attention.parameters())
    upstream = torch.randn_like(out)
    for g, e in zip(
        torch.autograd.grad(out, parameters, upstream), torch.autograd.grad(expected, parameters, upstream)
    ):
        torch.testing.assert_close(g, e)
    attention.pad_windows = False
    assert torch.allclose(attention(x, grid), out) == (grid[0] % size == grid[1] % size == 0)


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
