import math

import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import Tensor

from mmconvmae.utils.old_torch import (
    autocast_dtype,
    register_load_state_dict_pre_hook,
    statically_known_true,
)

from .capture import captures_graph


class GridEmbedding(BaseModule):
    """A parameter with a vector for each cell of a grid, which serves every other grid by resizing.

    A checkpoint made on another grid is resized when it is loaded.

    Args:
        weight (Tensor): Initial values, shape (\\*, rows * columns, C), row-major, with no leading axis or one
            of length 1. For clips (\\*, time slots, rows * columns, C).
        grid (tuple[int, ...]): Rows and columns; for clips time slots, rows and columns.
        mode (str): How it is resized, a mode of ``torch.nn.functional.interpolate``; along time it is always linear.
            Defaults to 'bicubic'.
    """

    def __init__(self, weight: Tensor, grid: tuple[int, ...], mode: str = 'bicubic') -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.grid = grid
        self.mode = mode
        register_load_state_dict_pre_hook(self, _resize_loaded)

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """Give the vectors for a grid.

        Args:
            grid (tuple[int, ...]): Rows and columns; for clips time slots, rows and columns.

        Returns:
            Tensor: Shape (\\*, [time slots,] rows * columns, C), row-major.
        """
        # In an exported graph a size may be a symbol, which a plain comparison would bind to the usual grid.
        is_usual = all(statically_known_true(edge == usual) for edge, usual in zip(grid, self.grid))
        return self.weight if is_usual else self.resize(self.weight, self.grid, grid)

    def resize(self, weight: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
        """Fit vectors to another grid.

        Args:
            weight (Tensor): Shape (\\*, [time slots,] rows * columns, C), row-major, with no leading axis or one of
                length 1.
            old (tuple[int, ...]): Rows and columns; for clips time slots, rows and columns.
            new (tuple[int, ...]): Those wanted.

        Returns:
            Tensor: Shape (\\*, [new time slots,] new rows * new columns, C), row-major, in the type of ``weight``.
        """
        *slots, rows, columns = new
        # (time slots or 1, C, rows, columns)
        maps = weight.reshape(-1, *old[-2:], weight.shape[-1]).permute(0, 3, 1, 2)
        maps = F.interpolate(maps.float(), size=(rows, columns), mode=self.mode, align_corners=False)
        if slots:
            lines = maps.flatten(1).t()[None]  # (1, C * rows * columns, time slots)
            lines = F.interpolate(lines, size=slots[0], mode='linear', align_corners=False)
            maps = lines[0].t().unflatten(1, maps.shape[1:])
        maps = maps.permute(0, 2, 3, 1)  # ([time slots or] 1, rows, columns, C)
        return maps.reshape(*weight.shape[: -len(old)], *slots, rows * columns, weight.shape[-1]).to(weight.dtype)


def _resize_loaded(module: GridEmbedding, state_dict: dict, prefix: str, *args) -> None:
    """Fit the vectors of a checkpoint to the grid of a module that is about to load them."""
    name, own = f'{prefix}weight', module.weight
    loaded = state_dict.get(name, own)
    if loaded.shape == own.shape:
        return
    if loaded.dim() != own.dim() or loaded.shape[-1] != own.shape[-1]:
        return  # the shape check of loading reports it
    length = loaded.shape[-2]
    # What a checkpoint has in rows and columns is taken to be square; time has an axis of its own.
    grid = (length, 1) if module.grid[-1] == 1 else (math.isqrt(length),) * 2
    if math.prod(grid) != length:
        return
    if len(module.grid) == 3:
        grid = (loaded.shape[-3], *grid)
    MMLogger.get_current_instance().info(
        f'Resize {name} from {" x ".join(map(str, grid))} to {" x ".join(map(str, module.grid))}.'
    )
    state_dict[name] = module.resize(loaded, grid, module.grid)


def in_autocast_type(x: Tensor) -> Tensor:
    """Cast a tensor as autocast would cast it where it is used, before it is made larger."""
    if captures_graph():  # autocast is in the graph
        return x
    return x.to(autocast_dtype(x.device.type) or x.dtype)
