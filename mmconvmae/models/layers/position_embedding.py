import torch
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor

from .grid_embedding import GridEmbedding


def sincos_position_embedding(grid: tuple[int, ...], embed_dims: int) -> Tensor:
    """Sine-cosine position embedding of rows and columns, as MAE has it, and of time.

    mmpretrain's function of this purpose puts the row first and mixes up the axes of a grid that is not square, so
    it gives other numbers than the checkpoints hold.

    Of a clip the first quarter of the channels encodes the time, and the others encode column and row as all channels
    of an image do. A clip of one time slot has no time to tell, and the embedding of an image.

    Args:
        grid (tuple[int, ...]): Rows and columns of positions; for clips time slots, rows and columns.
        embed_dims (int): Number of channels, divisible by 4; with several time slots by 16. The first half encodes the
            column, the second half the row, each as [sine | cosine] of the frequencies
            1 / 10000^(i / (embed_dims / 4)).

    Returns:
        Tensor: Shape (1, [time slots,] rows * columns, embed_dims), float32, row-major.

    Raises:
        ValueError: If ``embed_dims`` is not divisible by 4, or 16.
    """
    *slots, height, width = grid
    has_time = slots not in ([], [1])
    divisor = 16 if has_time else 4
    if embed_dims % divisor:
        raise ValueError(
            f'A sine-cosine position embedding needs a width divisible by {divisor}, and {embed_dims} is not.'
        )
    if has_time:
        in_time = _waves(torch.arange(slots[0]), embed_dims // 8)[:, None].expand(-1, height * width, -1)
        in_space = sincos_position_embedding((height, width), embed_dims // 4 * 3).expand(slots[0], -1, -1)
        return torch.cat([in_time, in_space], dim=-1)[None]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    embedding = torch.cat([_waves(axis.flatten(), embed_dims // 4) for axis in (columns, rows)], dim=1)
    return embedding.view(1, *slots, height * width, embed_dims)


def _waves(positions: Tensor, num_frequencies: int) -> Tensor:
    """[sine | cosine] of each position, shape (positions, 2 * num_frequencies), float32."""
    frequencies = 10000.0 ** -(torch.arange(num_frequencies, dtype=torch.float64) / num_frequencies)
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class PositionEmbedding(GridEmbedding):
    """A learnable position embedding for a grid of tokens, resized for every other: bicubically, linearly along time.

    Args:
        grid (tuple[int, ...]): Rows and columns of tokens of the usual input; for clips time slots, rows and columns.
        embed_dims (int): Number of channels.
    """

    def __init__(self, grid: tuple[int, ...], embed_dims: int) -> None:
        *slots, rows, columns = grid
        super().__init__(torch.zeros(1, *slots, rows * columns, embed_dims), grid)

    def init_weights(self) -> None:
        """Initialise with a truncated normal of deviation 0.02."""
        super().init_weights()
        trunc_normal_(self.weight, std=0.02)


class SinCosPositionEmbedding(GridEmbedding):
    """The fixed position embedding of pretraining: :func:`sincos_position_embedding` of whatever grid there is.

    Args:
        grid (tuple[int, ...]): Rows and columns of tokens of the usual input, whose embedding is kept; for clips time
            slots, rows and columns.
        embed_dims (int): Number of channels; see :func:`sincos_position_embedding`.
    """

    def __init__(self, grid: tuple[int, ...], embed_dims: int) -> None:
        super().__init__(sincos_position_embedding(grid, embed_dims), grid)
        self.weight.requires_grad_(False)

    def resize(self, weight: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
        """Make the embedding of another grid, of which that of the old one says nothing but its type."""
        return sincos_position_embedding(new, weight.shape[-1]).to(weight)
