import math

import torch
import torch.nn as nn
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor


class GridEmbedding(BaseModule):
    """A parameter with a vector for each cell of a grid, which serves every other grid by resizing.

    While nothing is trained, what was resized is kept for the last few grids. A checkpoint made on another grid is
    resized when it is loaded.

    Args:
        weight (Tensor): Initial values, shape (\\*, rows * columns, C), row-major.
        grid (tuple[int, int]): Rows and columns.
        mode (str): How it is resized, a mode of ``torch.nn.functional.interpolate``. Defaults to 'bicubic'.
    """

    # For how many grids the result is kept.
    KEPT_GRIDS = 8

    def __init__(self, weight: Tensor, grid: tuple[int, int], mode: str = 'bicubic') -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.grid = grid
        self.mode = mode
        self._kept: dict[tuple, Tensor] = {}
        self._register_load_state_dict_pre_hook(self._resize_loaded)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Give the vectors for a grid.

        Args:
            grid (tuple[int, int]): Rows and columns.

        Returns:
            Tensor: Shape (\\*, rows * columns, C), row-major.
        """
        if (torch.is_grad_enabled() and self.weight.requires_grad) or torch.compiler.is_compiling():
            return self.compute(grid)
        dtype = in_autocast_type(self.weight[:0]).dtype
        key = (grid, self.weight.device, self.weight.dtype, dtype, self.weight._version)
        if key not in self._kept:
            if len(self._kept) == self.KEPT_GRIDS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self.compute(grid)
        return self._kept[key]

    def compute(self, grid: tuple[int, int]) -> Tensor:
        """Make what :meth:`forward` gives and keeps."""
        return self.weight if grid == self.grid else self._resize(self.weight, self.grid, grid)

    def train(self, mode: bool = True) -> 'GridEmbedding':
        """Set the training mode and forget what was resized.

        Whatever exchanges weights between training and evaluation, such as mmengine's EMAHook, may leave no trace in
        their version.
        """
        self._kept.clear()
        return super().train(mode)

    def _resize(self, weight: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        flat = weight.reshape(1, *weight.shape[-2:])
        return resize_pos_embed(flat, old, new, self.mode, num_extra_tokens=0).reshape(
            *weight.shape[:-2], -1, weight.shape[-1]
        )

    def _resize_loaded(self, state_dict: dict, prefix: str, *args) -> None:
        """Fit the vectors of a checkpoint to this grid."""
        name = f'{prefix}weight'
        if name not in state_dict or state_dict[name].shape == self.weight.shape:
            return
        loaded = state_dict[name]
        if loaded.dim() != self.weight.dim() or loaded.shape[-1] != self.weight.shape[-1]:
            return  # the shape check of loading reports it
        length = loaded.shape[-2]
        # What a checkpoint has in two dimensions is taken to be square.
        grid = (length, 1) if self.grid[1] == 1 else (math.isqrt(length),) * 2
        if math.prod(grid) != length:
            return
        MMLogger.get_current_instance().info(
            f'Resize {name} from {grid[0]} x {grid[1]} to {self.grid[0]} x {self.grid[1]}.'
        )
        state_dict[name] = self._resize(loaded, grid, self.grid)


def in_autocast_type(x: Tensor) -> Tensor:
    """Cast a tensor as autocast would cast it where it is used, before it is made larger."""
    if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x
