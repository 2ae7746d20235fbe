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
    """A position embedding for a grid of tokens that serves every other grid by resizing.

    Args:
        grid (tuple[int, int]): Rows and columns of tokens of the usual input.
        embed_dims (int): Number of channels.
        learnable (bool): Whether it is trained; if not, it is the fixed sine-cosine embedding.
        mode (str): How it is resized, a mode of ``torch.nn.functional.interpolate``. Defaults to 'bicubic'.
    """

    def __init__(self, grid: tuple[int, int], embed_dims: int, learnable: bool, mode: str = 'bicubic') -> None:
        weight = (
            torch.zeros(1, grid[0] * grid[1], embed_dims) if learnable else sincos_position_embedding(grid, embed_dims)
        )
        super().__init__(weight, grid, mode)
        self.weight.requires_grad_(learnable)

    def init_weights(self) -> None:
        """Initialise a learnable embedding with a truncated normal of deviation 0.02; a fixed one stays."""
        super().init_weights()
        if self.weight.requires_grad:
            trunc_normal_(self.weight, std=0.02)
