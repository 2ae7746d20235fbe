from dataclasses import dataclass

import torch
from torch import Tensor

from mmconvmae.registry import TASK_UTILS


@dataclass(frozen=True)
class ConvMAEMask:
    """Which parts of each image of a batch are removed.

    Blocks are the patches that become one stage-3 token, numbered row by row, L in an image.

    Args:
        removed (Tensor): True where the image is removed, shape (B, rows * s, columns * s), bool. With s = 1 whole
            blocks are removed, else cells, s x s to a block.
        ids_keep (Tensor): Blocks that stage 3 sees, shape (B, N), int64.
        ids_restore (Tensor): Place of each block in the order [kept blocks, other blocks], shape (B, L), int64.
        ids_predict (Tensor): Blocks that the decoder predicts for the loss, shape (B, M), int64: the removed ones, or
            all where cells are removed.
        grid (tuple[int, int]): Rows and columns of blocks.
    """

    removed: Tensor
    ids_keep: Tensor
    ids_restore: Tensor
    ids_predict: Tensor
    grid: tuple[int, int]

    @classmethod
    def from_order(cls, ids_shuffle: Tensor, num_keep: int, grid: tuple[int, int]) -> 'ConvMAEMask':
        """Make block-wise masks that keep the first blocks of an order.

        Args:
            ids_shuffle (Tensor): The blocks of each image in some order, shape (B, L), int64.
            num_keep (int): Number of blocks to keep.
            grid (tuple[int, int]): Rows and columns of blocks.

        Returns:
            ConvMAEMask: The masks.
        """
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        removed = (ids_restore >= num_keep).unflatten(1, grid)
        return cls(removed, ids_shuffle[:, :num_keep], ids_restore, ids_shuffle[:, num_keep:], tuple(grid))

    @classmethod
    def from_removed(cls, removed: Tensor) -> 'ConvMAEMask':
        """Make block-wise masks of your own.

        Args:
            removed (Tensor): True for the blocks to remove, shape (B, rows, columns), bool.

        Returns:
            ConvMAEMask: The masks.

        Raises:
            ValueError: If the images do not all have the same number of removed blocks, or if it is none or all.
        """
        counts = removed.flatten(1).sum(1).tolist()
        num_blocks = removed[0].numel()
        if len(set(counts)) > 1 or not 0 < counts[0] < num_blocks:
            raise ValueError(
                f'The images of a batch have {counts} of {num_blocks} blocks removed; remove the same number of each, '
                'neither none nor all.'
            )
        order = torch.argsort(removed.flatten(1).byte(), dim=1, stable=True)
        return cls.from_order(order, num_blocks - counts[0], tuple(removed.shape[1:]))

    @property
    def is_block_wise(self) -> bool:
        """Whether each block is removed or kept as a whole."""
        return tuple(self.removed.shape[1:]) == self.grid

    def visible(self, height: int, width: int) -> Tensor:
        """The mask on the grid of a stage.

        Args:
            height (int): Rows of the grid: a multiple of the rows of blocks, and a multiple or a divisor of the rows of
                ``removed``.
            width (int): Columns of the grid, as many times the columns of blocks.

        Returns:
            Tensor: 1 where anything of the position is visible and 0 elsewhere, shape (B, height, width, 1), float32.
        """
        visible = ~self.removed
        rows = visible.shape[1]
        if height >= rows:
            scale = height // rows
            visible = visible.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        else:
            scale = rows // height
            visible = visible.unflatten(2, (width, scale)).unflatten(1, (height, scale)).any(4).any(2)
        return visible.unsqueeze(-1).float()


@TASK_UTILS.register_module()
class ConvMAEMaskGenerator:
    """Draws random masks, block-wise by default (paper, section 3.2).

    Of L uniform random numbers for each image, one for each block, the ``int(L * (1 - mask_ratio))`` smallest mark the
    blocks that stay visible. All numbers of a batch come from one ``torch.rand``, so the same seed gives the same
    masks as the authors' code.

    Args:
        mask_ratio (float): Share of the image that is removed, between 0 and 1. Defaults to 0.75.
        cells_per_edge (int): Each block is divided into this many rows and columns of cells, and cells are drawn in
            place of blocks. 1 is block-wise masking. The number of stage-1 tokens along the edge of a block, 4 by
            default, is masking per stage-1 token, the ablation in table 5 of the paper. Defaults to 1.

    Raises:
        ValueError: If ``mask_ratio`` is not between 0 and 1.
    """

    def __init__(self, mask_ratio: float = 0.75, cells_per_edge: int = 1) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f'`mask_ratio` is {mask_ratio}; it must lie between 0 and 1, both excluded.')
        self.mask_ratio = mask_ratio
        self.cells_per_edge = cells_per_edge

    def __call__(self, batch_size: int, grid: tuple[int, int], device: torch.device | str = 'cpu') -> ConvMAEMask:
        """Draw the masks of a batch.

        Args:
            batch_size (int): Number of images, B.
            grid (tuple[int, int]): Rows and columns of blocks in an image.
            device (torch.device | str): Where to draw. Defaults to 'cpu'.

        Returns:
            ConvMAEMask: The masks.

        Raises:
            ValueError: If the ratio leaves no block visible, or removes none, on this grid.
        """
        num_cells = grid[0] * grid[1] * self.cells_per_edge**2
        return self.from_noise(torch.rand(batch_size, num_cells, device=device), grid)

    def from_noise(self, noise: Tensor, grid: tuple[int, int]) -> ConvMAEMask:
        """Make the masks that random numbers stand for.

        Args:
            noise (Tensor): Shape (B, number of blocks or cells, row by row).
            grid (tuple[int, int]): Rows and columns of blocks in an image.

        Returns:
            ConvMAEMask: The masks.

        Raises:
            ValueError: If the ratio leaves no block visible, or removes none, on this grid.
        """
        num_cells = noise.shape[1]
        num_keep = int(num_cells * (1 - self.mask_ratio))
        if not 0 < num_keep < num_cells:
            fault = 'leaves none of them visible' if num_keep == 0 else 'removes none of them'
            raise ValueError(
                f'A mask ratio of {self.mask_ratio} on {num_cells} patches ({grid[0]} x {grid[1]} blocks) {fault}; '
                'use larger images or another `mask_ratio`.'
            )
        ids_shuffle = torch.argsort(noise, dim=1)
        if self.cells_per_edge == 1:
            return ConvMAEMask.from_order(ids_shuffle, num_keep, grid)
        removed = torch.argsort(ids_shuffle, dim=1) >= num_keep
        removed = removed.unflatten(1, tuple(n * self.cells_per_edge for n in grid))
        # nearly every block has a visible cell, so stage 3 sees them all
        blocks = torch.arange(grid[0] * grid[1], device=noise.device).expand(len(noise), -1)
        return ConvMAEMask(removed, ids_keep=blocks, ids_restore=blocks, ids_predict=blocks, grid=tuple(grid))
