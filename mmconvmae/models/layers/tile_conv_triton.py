"""Triton kernels of the tile convolution; see :func:`mmconvmae.models.layers.tile_conv.tile_conv2d`."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

# Tiles that one program of the weight gradient sums over. Their sums are added by PyTorch in a fixed order, so that
# no result depends on the order in which programs run.
_TILES_PER_PROGRAM = 64


@triton.jit
def _source(x_ptr, slots_ptr, image, row, column, active, c, c_mask, num_tiles, rows, columns, SIZE, C):
    """Values at positions of a map that exists only as tiles: zero outside of the map and where no tile sits.

    ``row`` and ``column`` are positions on the map, and may be negative; they give the first axis, ``c`` the second.
    """
    inside = active & (row >= 0) & (row < rows * SIZE) & (column >= 0) & (column < columns * SIZE)
    place = (row // SIZE) * columns + column // SIZE
    slot = tl.load(slots_ptr + image * rows * columns + place, mask=inside, other=-1)
    inside = inside & (slot >= 0)
    position = ((image * num_tiles + slot) * SIZE + row % SIZE) * SIZE + column % SIZE
    pointers = x_ptr + position.to(tl.int64)[:, None] * C + c[None, :]
    return tl.load(pointers, mask=inside[:, None] & c_mask[None, :], other=0.0).to(tl.float32)


@triton.jit
def _forward_kernel(
    x_ptr,  # (B, N, SIZE, SIZE, C)
    ids_ptr,  # (B, N)
    slots_ptr,  # (B, rows * columns)
    weight_ptr,  # (KERNEL * KERNEL, C)
    bias_ptr,  # (C,)
    out_ptr,  # (B, N, SIZE, SIZE, C)
    num_tiles,
    rows,
    columns,
    C,
    SIZE: tl.constexpr,
    KERNEL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A program computes BLOCK_C channels of one tile."""
    tile = tl.program_id(0)
    image = tile // num_tiles
    place = tl.load(ids_ptr + tile)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    p = tl.arange(0, BLOCK_P)
    p_mask = p < SIZE * SIZE
    row = (place // columns) * SIZE + p // SIZE
    column = (place % columns) * SIZE + p % SIZE

    acc = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + c, mask=c_mask, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(KERNEL * KERNEL):
        source_row = row + (k // KERNEL - KERNEL // 2)
        source_column = column + (k % KERNEL - KERNEL // 2)
        x = _source(
            x_ptr, slots_ptr, image, source_row, source_column, p_mask, c, c_mask, num_tiles, rows, columns, SIZE, C
        )
        weight = tl.load(weight_ptr + k * C + c, mask=c_mask, other=0.0).to(tl.float32)
        acc += x * weight[None, :]
    pointers = out_ptr + (tile.to(tl.int64) * SIZE * SIZE + p)[:, None] * C + c[None, :]
    tl.store(pointers, acc.to(out_ptr.dtype.element_ty), mask=p_mask[:, None] & c_mask[None, :])


@triton.jit
def _weight_kernel(
    x_ptr,  # (B, N, SIZE, SIZE, C)
    ids_ptr,  # (B, N)
    slots_ptr,  # (B, rows * columns)
    grad_ptr,  # (B, N, SIZE, SIZE, C)
    out_ptr,  # (programs, KERNEL * KERNEL, C)
    total_tiles,
    num_tiles,
    rows,
    columns,
    C,
    SIZE: tl.constexpr,
    KERNEL: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A program sums the gradient of BLOCK_C channels of the whole kernel over TILES tiles."""
    program = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    k = tl.arange(0, BLOCK_K)
    k_mask = k < KERNEL * KERNEL
    acc = tl.zeros((BLOCK_K, BLOCK_C), dtype=tl.float32)
    for i in range(TILES):
        tile = program * TILES + i
        exists = tile < total_tiles
        image = tile // num_tiles
        place = tl.load(ids_ptr + tile, mask=exists, other=0)
        for p in range(SIZE * SIZE):
            row = (place // columns) * SIZE + p // SIZE + k // KERNEL - KERNEL // 2
            column = (place % columns) * SIZE + p % SIZE + k % KERNEL - KERNEL // 2
            x = _source(
                x_ptr, slots_ptr, image, row, column, k_mask & exists, c, c_mask, num_tiles, rows, columns, SIZE, C
            )
            pointers = grad_ptr + (tile.to(tl.int64) * SIZE * SIZE + p) * C + c
            grad = tl.load(pointers, mask=c_mask & exists, other=0.0).to(tl.float32)
            acc += x * grad[None, :]
    pointers = out_ptr + (program * KERNEL * KERNEL + k)[:, None] * C + c[None, :]
    tl.store(pointers, acc, mask=k_mask[:, None] & c_mask[None, :])


def _convolve(x: Tensor, taps: Tensor, bias: Tensor | None, ids: Tensor, slots: Tensor, columns: int) -> Tensor:
    """Run the forward kernel with ``taps`` of shape (kernel * kernel, C)."""
    batch, num_tiles, size, _, channels = x.shape
    out = torch.empty_like(x)
    block_c = min(64, triton.next_power_of_2(channels))
    _forward_kernel[(batch * num_tiles, triton.cdiv(channels, block_c))](
        x,
        ids,
        slots,
        taps,
        taps if bias is None else bias,
        out,
        num_tiles,
        slots.shape[1] // columns,
        columns,
        channels,
        SIZE=size,
        KERNEL=round(len(taps) ** 0.5),
        HAS_BIAS=bias is not None,
        BLOCK_P=triton.next_power_of_2(size * size),
        BLOCK_C=block_c,
    )
    return out


@custom_op('mmconvmae::tile_conv2d', mutates_args=())
def tile_conv2d_triton(x: Tensor, weight: Tensor, bias: Tensor, ids: Tensor, slots: Tensor, columns: int) -> Tensor:
    """Tile convolution in one kernel. See ``tile_conv2d``; ``ids`` and ``slots`` are those of the tile index."""
    taps = weight.flatten(1).t().contiguous()  # (k * k, C)
    return _convolve(x.contiguous(), taps, bias, ids.contiguous(), slots, columns)


@tile_conv2d_triton.register_fake
def _(x, weight, bias, ids, slots, columns):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@custom_op('mmconvmae::tile_conv2d_backward', mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, ids: Tensor, slots: Tensor, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad, x, ids = grad.contiguous(), x.contiguous(), ids.contiguous()
    batch, num_tiles, size, _, channels = x.shape
    kernel = weight.shape[-1]
    # The gradient of the input is the convolution of the gradient with the kernel turned half round.
    grad_x = _convolve(grad, weight.flatten(1).flip(1).t().contiguous(), None, ids, slots, columns)
    tiles = min(_TILES_PER_PROGRAM, batch * num_tiles)
    programs = triton.cdiv(batch * num_tiles, tiles)
    partial = x.new_empty(programs, kernel * kernel, channels, dtype=torch.float32)
    block_c = min(32, triton.next_power_of_2(channels))
    _weight_kernel[(programs, triton.cdiv(channels, block_c))](
        x,
        ids,
        slots,
        grad,
        partial,
        batch * num_tiles,
        num_tiles,
        slots.shape[1] // columns,
        columns,
        channels,
        SIZE=size,
        KERNEL=kernel,
        TILES=tiles,
        BLOCK_K=triton.next_power_of_2(kernel * kernel),
        BLOCK_C=block_c,
    )
    grad_weight = partial.sum(0).t().reshape(weight.shape).to(weight.dtype)
    grad_bias = grad.sum((0, 1, 2, 3), dtype=torch.float32).to(weight.dtype)
    return grad_x, grad_weight, grad_bias


@_backward.register_fake
def _(grad, x, weight, ids, slots, columns):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(weight), weight.new_empty(len(weight))


def _setup_context(ctx, inputs, output):
    x, weight, _, ids, slots, ctx.columns = inputs
    ctx.save_for_backward(x, weight, ids, slots)


def _differentiate(ctx, grad):
    return *_backward(grad, *ctx.saved_tensors, ctx.columns), None, None, None


tile_conv2d_triton.register_autograd(_differentiate, setup_context=_setup_context)
