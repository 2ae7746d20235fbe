from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor

from mmconvmae.registry import TASK_UTILS
from mmconvmae.utils import check_integer


@dataclass(frozen=True)
class ConvMAEMask:
    """Which parts of each image of a batch are removed.

    Blocks are the patches that become one stage-3 token, numbered row by row, L in an image. B is the number of images,
    or several times that: an image may have several masks, one after the other, each of which makes a view of it.

    Args:
        removed (Tensor): True where the image is removed, shape (B, rows * s, columns * s), bool. With s = 1 whole
            blocks are removed, else cells, s x s to a block.
        ids_keep (Tensor): Blocks that stage 3 sees, shape (B, N), int64.
        ids_restore (Tensor): Place of each block in the order [kept blocks, other blocks], shape (B, L), int64.
        ids_predict (Tensor): Blocks that the decoder predicts for the loss, shape (B, M), int64: the removed ones, some
            of them, or all blocks where cells are removed.
        grid (tuple[int, int]): Rows and columns of blocks.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import ConvMAEMask
        >>> right_half = torch.tensor([[False, True], [False, True]])
        >>> mask = ConvMAEMask.from_removed(right_half.expand(3, 2, 2))
        >>> mask.ids_keep[0].tolist(), mask.ids_predict[0].tolist()
        ([0, 2], [1, 3])
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

    @property
    def predicts_all(self) -> bool:
        """Whether no removed block is left out of ``ids_predict``."""
        return self.ids_keep.shape[1] + self.ids_predict.shape[1] >= self.ids_restore.shape[1]

    def predict_share(self, ratio: float) -> 'ConvMAEMask':
        """Leave a part of the removed blocks out of the prediction.

        Those that stay are the first of ``ids_predict``. A generator has these in the order of its random numbers, so
        they are a random share and nothing more is drawn.

        Args:
            ratio (float): Share of the blocks in ``ids_predict`` to predict, at most 1; of each image the nearest whole
                number, at least one.

        Returns:
            ConvMAEMask: Masks that remove the same.

        Raises:
            ValueError: If less than all is to be predicted and the mask removes parts of blocks.
        """
        if ratio == 1:
            return self
        if not self.is_block_wise:
            raise ValueError(
                f'A share of {ratio} of the removed blocks cannot be predicted, because this mask removes parts of '
                'blocks; set `predict_ratio=1` of the neck, or use a generator with `cells_per_edge=1`.'
            )
        number = max(1, round(ratio * self.ids_predict.shape[1]))
        return replace(self, ids_predict=self.ids_predict[:, :number])

    def first_view(self, num_images: int) -> 'ConvMAEMask':
        """Take one mask for each image.

        Args:
            num_images (int): Number of images, which divides that of masks.

        Returns:
            ConvMAEMask: The first mask of each image.
        """
        step = len(self.ids_keep) // num_images
        parts = (self.removed, self.ids_keep, self.ids_restore, self.ids_predict)
        return ConvMAEMask(*(part[::step] for part in parts), grid=self.grid)

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
    blocks that stay visible, with ``round_up`` the ``L - int(L * mask_ratio)`` smallest. All numbers of a batch come
    from one ``torch.rand``, so the same seed gives the same masks as the authors' code.

    Args:
        mask_ratio (float): Share of the image that is removed, between 0 and 1. Defaults to 0.75.
        cells_per_edge (int): Each block is divided into this many rows and columns of cells, and cells are drawn in
            place of blocks. 1 is block-wise masking. The number of stage-1 tokens along the edge of a block, 4 by
            default, is masking per stage-1 token, the ablation in table 5 of the paper. Defaults to 1.
        round_up (bool): Whether the number of visible blocks is rounded up, as in VideoMAE, which keeps 20 of 196 with
            a ratio of 0.9, and not down to 19, as in MAE. Defaults to False.

    Raises:
        ValueError: If ``mask_ratio`` is not between 0 and 1.

    Examples:
        >>> from mmconvmae.models import ConvMAEMaskGenerator
        >>> mask = ConvMAEMaskGenerator(mask_ratio=0.75)(batch_size=8, grid=(14, 14))
        >>> mask.ids_keep.shape, mask.removed.shape
        (torch.Size([8, 49]), torch.Size([8, 14, 14]))
    """

    def __init__(self, mask_ratio: float = 0.75, cells_per_edge: int = 1, round_up: bool = False) -> None:
        if not isinstance(mask_ratio, Real) or not 0 < mask_ratio < 1:
            raise ValueError(f'`mask_ratio` is {mask_ratio!r}; it must lie between 0 and 1, both excluded.')
        check_integer('cells_per_edge', cells_per_edge)
        self.mask_ratio = mask_ratio
        self.cells_per_edge = cells_per_edge
        self.round_up = round_up

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
        if self.round_up:
            num_keep = num_cells - int(num_cells * self.mask_ratio)
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


@TASK_UTILS.register_module()
class ComplementaryMaskGenerator(ConvMAEMaskGenerator):
    """Draws several random masks for each image, which together show each of its blocks once (FastConvMAE).

    The order of one uniform random number for each block is cut into 1 / (1 - ``mask_ratio``) runs. Each run is what
    one mask leaves visible. The first mask of an image is the one that :class:`ConvMAEMaskGenerator` draws, and the
    order of the others is the same one, turned until their run comes first.

    Args:
        mask_ratio (float): Share of the image that each mask removes. Defaults to 0.75, for four masks.

    Raises:
        ValueError: If 1 / (1 - ``mask_ratio``) is not a whole number of 2 or more.
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        super().__init__(mask_ratio)
        self.num_views = round(1 / (1 - mask_ratio))
        if self.num_views < 2 or abs(self.num_views * (1 - mask_ratio) - 1) > 1e-6:
            raise ValueError(
                f'`mask_ratio` is {mask_ratio}, which leaves a share visible that does not go into the image a whole '
                'number of times; complementary masks need 1/2, 2/3, 3/4, 4/5 and so on.'
            )

    def from_noise(self, noise: Tensor, grid: tuple[int, int]) -> ConvMAEMask:
        """Make the masks that random numbers stand for.

        Args:
            noise (Tensor): Shape (images, number of blocks, row by row).
            grid (tuple[int, int]): Rows and columns of blocks in an image.

        Returns:
            ConvMAEMask: The masks, as many for each image as there are runs, one after the other.

        Raises:
            ValueError: If the blocks of an image cannot be divided into as many equal runs.
        """
        num_blocks, num_views = noise.shape[1], self.num_views
        if num_blocks % num_views:
            raise ValueError(
                f'{num_views} complementary masks cannot show the same number of blocks each, because an image has '
                f'{num_blocks} ({grid[0]} x {grid[1]}); use images of another size, or another `mask_ratio`.'
            )
        num_keep = num_blocks // num_views
        ids_shuffle = torch.argsort(noise, dim=1)
        orders = torch.stack([ids_shuffle.roll(-i * num_keep, 1) for i in range(num_views)], 1)  # (images, views, L)
        return ConvMAEMask.from_order(orders.flatten(0, 1), num_keep, grid)
