import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import captures_graph
from .grid_embedding import in_autocast_type


def depthwise_conv3d(x: Tensor, weight: Tensor, border: int) -> Tensor:
    """Depthwise convolution of channels-last maps in three dimensions, whose result has as many frames.

    On a CPU PyTorch takes more than ten times as long for each gradient as for the convolution; here they are another
    convolution and matrix products.

    Args:
        x (Tensor): Maps of shape (B, T, H, W, C).
        weight (Tensor): Kernels of shape (C, 1, kt, k, k), kt and k odd.
        border (int): Width of the border of zeros around rows and columns, less than k.

    Returns:
        Tensor: Shape (B, T, H + 2 * border - k + 1, W + 2 * border - k + 1, C).
    """
    if x.device.type != 'cpu' or captures_graph() or not torch.is_grad_enabled():
        return _convolve(x, weight, border)
    return _DepthwiseConv3d.apply(in_autocast_type(x), in_autocast_type(weight), border)


def _convolve(x: Tensor, weight: Tensor, border: int) -> Tensor:
    padding = (weight.shape[2] // 2, border, border)
    # A view with the channels first, which are last in memory.
    return F.conv3d(x.permute(0, 4, 1, 2, 3), weight, padding=padding, groups=len(weight)).permute(0, 2, 3, 4, 1)


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, border: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.border = border
        return _convolve(x, weight, border)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            # The convolution with the kernel turned round on every axis.
            grad_x = _convolve(grad, weight.flip(2, 3, 4), weight.shape[-1] - 1 - ctx.border)
        if ctx.needs_input_grad[1]:
            x = F.pad(x, (0, 0, *(ctx.border,) * 4))
            grad_weight = _gradient_of_weight(x, grad, *weight.shape[2:4]).to(weight.dtype)
        return grad_x, grad_weight, None


def _gradient_of_weight(x: Tensor, grad: Tensor, kernel_t: int, kernel: int) -> Tensor:
    """Gradient of the kernels.

    The result of the convolution is cut into tiles. For each channel a matrix product multiplies every position of a
    tile with every position of the window that it was made of, and sums over all tiles; the products at one offset
    belong to one number of the kernel.

    Args:
        x (Tensor): Maps with their border, shape (B, T, H + kernel - 1, W + kernel - 1, C).
        grad (Tensor): Shape (B, T, H, W, C).
        kernel_t (int): Length of the kernels in time.
        kernel (int): Their edge in space.

    Returns:
        Tensor: Shape (C, 1, kernel_t, kernel, kernel), float32 or more.
    """
    frames, height, width, channels = grad.shape[1:]
    size = next(n for n in (4, 2, 1) if height % n == width % n == 0)
    edge = size + kernel - 1

    def cut(x: Tensor, edge: int) -> Tensor:
        windows = x.unfold(2, edge, size).unfold(3, edge, size)  # (B, T, rows, columns, C, edge, edge)
        return windows.permute(1, 4, 0, 2, 3, 5, 6).reshape(frames, channels, -1, edge**2).contiguous()

    windows, tiles = cut(x, edge), cut(grad, size)  # (T, C, number of tiles, edge²) and (T, C, number of tiles, size²)
    by_time = []
    for shift in range(-(kernel_t // 2), kernel_t // 2 + 1):
        length = max(0, frames - abs(shift))
        source = windows[max(0, shift) :][:length].flatten(0, 1)
        target = tiles[max(0, -shift) :][:length].flatten(0, 1)
        products = torch.bmm(source.mT, target).view(length, channels, edge, edge, size, size)
        products = products.sum(0, dtype=torch.promote_types(x.dtype, torch.float32))
        offsets = (products[:, i : i + kernel, j : j + kernel, i, j] for i in range(size) for j in range(size))
        by_time.append(sum(offsets))  # (C, kernel, kernel)
    return torch.stack(by_time, 1).unsqueeze(1)
