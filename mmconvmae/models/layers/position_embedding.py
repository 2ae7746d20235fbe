import torch
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from .grid_embedding import GridEmbedding


def sincos_position_embedding(grid: tuple[int, int], embed_dims: int) -> Tensor:
    """Two-dimensional sine-cosine position embedding, as MAE has it.

    mmpretrain's function of this purpose puts the row first and mixes up the axes of a grid that is not square, so
    it gives other numbers than the checkpoints hold.

    Args:
        grid (tuple[int, int]): Rows and columns of positions.
        embed_dims (int): Number of channels, divisible by 4. The first half encodes the column, the second half the
            row, each as [sine | cosine] of the frequencies 1 / 10000^(i / (embed_dims / 4)).

    Returns:
        Tensor: Shape (1, rows * columns, embed_dims), float32, row-major.

    Raises:
        ValueError: If ``embed_dims`` is not divisible by 4.
    """
    if embed_dims % 4:
        raise ValueError(f'A sine-cosine position embedding needs a width divisible by 4, and {embed_dims} is not.')
    frequencies = 10000.0 ** -(torch.arange(embed_dims // 4, dtype=torch.float64) / (embed_dims / 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing='ij')
    angles = [axis.flatten()[:, None] * frequencies for axis in (columns, rows)]  # 2 x (rows * columns, C / 4)
    embedding = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return embedding[None].float()


class PositionEmbedding(GridEmbedding):
    """A learnable position embedding for a grid of tokens, resized bicubically for every other grid.

    Args:
        grid (tuple[int, int]): Rows and columns of tokens of the usual input.
        embed_dims (int): Number of channels.
    """

    def __init__(self, grid: tuple[int, int], embed_dims: int) -> None:
        super().__init__(torch.zeros(1, grid[0] * grid[1], embed_dims), grid)

    def init_weights(self) -> None:
        """Initialise with a truncated normal of deviation 0.02."""
        super().init_weights()
        trunc_normal_(self.weight, std=0.02)


class SinCosPositionEmbedding(GridEmbedding):
    """The fixed position embedding of pretraining: :func:`sincos_position_embedding` of whatever grid there is.

    Args:
        grid (tuple[int, int]): Rows and columns of tokens of the usual input, whose embedding is kept.
        embed_dims (int): Number of channels, divisible by 4.
    """

    def __init__(self, grid: tuple[int, int], embed_dims: int) -> None:
        super().__init__(sincos_position_embedding(grid, embed_dims), grid)
        self.weight.requires_grad_(False)

    def resize(self, weight: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        """Make the embedding of another grid, of which that of the old one says nothing but its type."""
        return sincos_position_embedding(new, weight.shape[-1]).to(weight)
