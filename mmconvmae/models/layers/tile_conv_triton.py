"""Triton kernels of the tile convolution; see :func:`mmconvmae.models.layers.tile_conv.tile_conv2d`."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

# Tiles, or frames of them, that one program of the weight gradient sums over. The sums of programs are added by PyTorch
# in a fixed order, so that no result depends on the order in which programs run.
_FRAMES_PER_PROGRAM = 64


@triton.jit
def _source(x_ptr, slots_ptr, image, frame, row, column, active, c, c_mask, num_tiles, frames, rows, columns, SIZE, C):
    """Values at positions of a map that exists only as tiles: zero outside of the map and where no tile sits.

    ``frame``, ``row`` and ``column`` are positions on the map, and may be negative; ``frame`` is one number, ``row``
    and ``column`` give the first axis, ``c`` the second.
    """
    inside = active & (frame >= 0) & (frame < frames)
    inside = inside & (row >= 0) & (row < rows * SIZE) & (column >= 0) & (column < columns * SIZE)
    place = (row // SIZE) * columns + column // SIZE
    slot = tl.load(slots_ptr + image * rows * columns + place, mask=inside, other=-1)
    inside = inside & (slot >= 0)
    position = (((image * num_tiles + slot) * frames + frame) * SIZE + row % SIZE) * SIZE + column % SIZE
    pointers = x_ptr + position.to(tl.int64)[:, None] * C + c[None, :]
    return tl.load(pointers, mask=inside[:, None] & c_mask[None, :], other=0.0).to(tl.float32)


@triton.jit
def _forward_kernel(
    x_ptr,  # (B, N, frames, SIZE, SIZE, C)
    ids_ptr,  # (B, N)
    slots_ptr,  # (B, rows * columns)
    weight_ptr,  # (KERNEL_T * KERNEL * KERNEL, C)
    bias_ptr,  # (C,)
    out_ptr,  # (B, N, frames, SIZE, SIZE, C)
    num_tiles,
    frames,
    rows,
    columns,
    C,
    SIZE: tl.constexpr,
    KERNEL: tl.constexpr,
    KERNEL_T: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A program computes BLOCK_C channels of one frame of one tile."""
    tile_frame = tl.program_id(0)
    tile = tile_frame // frames
    frame = tile_frame % frames
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
    for k_t in range(KERNEL_T):
        source_frame = frame + k_t - KERNEL_T // 2
        for k in tl.static_range(KERNEL * KERNEL):
            source_row = row + (k // KERNEL - KERNEL // 2)
            source_column = column + (k % KERNEL - KERNEL // 2)
            x = _source(
                x_ptr,
                slots_ptr,
                image,
                source_frame,
                source_row,
                source_column,
                p_mask,
                c,
                c_mask,
                num_tiles,
                frames,
                rows,
                columns,
                SIZE,
                C,
            )
            weight = tl.load(weight_ptr + (k_t * KERNEL * KERNEL + k) * C + c, mask=c_mask, other=0.0).to(tl.float32)
            acc += x * weight[None, :]
    pointers = out_ptr + (tile_frame.to(tl.int64) * SIZE * SIZE + p)[:, None] * C + c[None, :]
    tl.store(pointers, acc.to(out_ptr.dtype.element_ty), mask=p_mask[:, None] & c_mask[None, :])


@triton.jit
def _weight_kernel(
    x_ptr,  # (B, N, frames, SIZE, SIZE, C)
    ids_ptr,  # (B, N)
    slots_ptr,  # (B, rows * columns)
    grad_ptr,  # (B, N, frames, SIZE, SIZE, C)
    out_ptr,  # (programs, KERNEL_T, KERNEL * KERNEL, C)
    total_frames,
    num_tiles,
    frames,
    rows,
    columns,
    C,
    SIZE: tl.constexpr,
    KERNEL: tl.constexpr,
    KERNEL_T: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """A program sums the gradient of BLOCK_C channels of the kernel at one time over FRAMES frames of tiles."""
    program = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    k_t = tl.program_id(2)
    c_mask = c < C
    k = tl.arange(0, BLOCK_K)
    k_mask = k < KERNEL * KERNEL
    acc = tl.zeros((BLOCK_K, BLOCK_C), dtype=tl.float32)
    for i in range(FRAMES):
        tile_frame = program * FRAMES + i
        exists = tile_frame < total_frames
        tile = tile_frame // frames
        source_frame = tile_frame % frames + k_t - KERNEL_T // 2
        image = tile // num_tiles
        place = tl.load(ids_ptr + tile, mask=exists, other=0)
        for p in range(SIZE * SIZE):
            row = (place // columns) * SIZE + p // SIZE + k // KERNEL - KERNEL // 2
            column = (place % columns) * SIZE + p % SIZE + k % KERNEL - KERNEL // 2
            x = _source(
                x_ptr,
                slots_ptr,
                image,
                source_frame,
                row,
                column,
                k_mask & exists,
                c,
                c_mask,
                num_tiles,
                frames,
                rows,
                columns,
                SIZE,
                C,
            )
            pointers = grad_ptr + (tile_frame.to(tl.int64) * SIZE * SIZE + p) * C + c
            grad = tl.load(pointers, mask=c_mask & exists, other=0.0).to(tl.float32)
            acc += x * grad[None, :]
    pointers = out_ptr + ((program * KERNEL_T + k_t) * KERNEL * KERNEL + k)[:, None] * C + c[None, :]
    tl.store(pointers, acc, mask=k_mask[:, None] & c_mask[None, :])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, slots: Tensor, columns: int) -> Tensor:
    """Run the forward kernel."""
    batch, num_tiles, *frames, size, _, channels = x.shape
    frames = math.prod(frames)
    taps = weight.flatten(1).t().contiguous()  # (kt * k * k, C)
    out = torch.empty_like(x)
    block_c = min(64, triton.next_power_of_2(channels))
    _forward_kernel[(batch * num_tiles * frames, triton.cdiv(channels, block_c))](
        x,
        ids,
        slots,
        taps,
        taps if bias is None else bias,
        out,
        num_tiles,
        frames,
        slots.shape[1] // columns,
        columns,
        channels,
        SIZE=size,
        KERNEL=weight.shape[-1],
        KERNEL_T=math.prod(weight.shape[2:-2]),
        HAS_BIAS=bias is not None,
        BLOCK_P=triton.next_power_of_2(size * size),
        BLOCK_C=block_c,
    )
    return out


@custom_op('mmconvmae::tile_conv2d', mutates_args=())
def tile_conv2d_triton(x: Tensor, weight: Tensor, bias: Tensor, ids: Tensor, slots: Tensor, columns: int) -> Tensor:
    """Tile convolution in one kernel. See ``tile_conv2d``; ``ids`` and ``slots`` are those of the tile index."""
    return _convolve(x.contiguous(), weight, bias, ids.contiguous(), slots, columns)


@tile_conv2d_triton.register_fake
def _(x, weight, bias, ids, slots, columns):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@custom_op('mmconvmae::tile_conv2d_backward', mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, ids: Tensor, slots: Tensor, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad, x, ids = grad.contiguous(), x.contiguous(), ids.contiguous()
    batch, num_tiles, *frames, size, _, channels = x.shape
    frames, kernel, kernel_t = math.prod(frames), weight.shape[-1], math.prod(weight.shape[2:-2])
    # The gradient of the input is the convolution of the gradient with the kernel turned round on every axis.
    grad_x = _convolve(grad, weight.flatten(1).flip(1).view_as(weight), None, ids, slots, columns)
    total = batch * num_tiles * frames
    share = min(_FRAMES_PER_PROGRAM, total)
    programs = triton.cdiv(total, share)
    partial = x.new_empty(programs, weight[0].numel(), channels, dtype=torch.float32)
    block_c = min(32, triton.next_power_of_2(channels))
    _weight_kernel[(programs, triton.cdiv(channels, block_c), kernel_t)](
        x,
        ids,
        slots,
        grad,
        partial,
        total,
        num_tiles,
        frames,
        slots.shape[1] // columns,
        columns,
        channels,
        SIZE=size,
        KERNEL=kernel,
        KERNEL_T=kernel_t,
        FRAMES=share,
        BLOCK_K=triton.next_power_of_2(kernel * kernel),
        BLOCK_C=block_c,
    )
    grad_weight = partial.sum(0).t().reshape(weight.shape).to(weight.dtype)
    grad_bias = grad.flatten(0, -2).sum(0, dtype=torch.float32).to(weight.dtype)
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
