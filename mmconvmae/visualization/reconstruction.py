from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmconvmae.models.heads import ConvMAEPretrainHead
from mmconvmae.models.selfsup import ConvMAE
from mmconvmae.utils import write_whole

COLUMNS = ('original', 'masked', 'reconstruction', 'reconstruction + visible')
NEIGHBOURS = "with neighbours' statistics"
NOTE = (
    'The model predicts patches without their brightness and contrast. The third and fourth columns take these from\n'
    'the original, the last from the visible patches near by, so that nothing of what was removed is in it.'
)


def with_neighbours_statistics(
    head: ConvMAEPretrainHead, reconstructions: Tensor, images: Tensor, removed: Tensor
) -> Tensor:
    """Give removed patches the mean and deviation of the visible patches around instead of their own.

    Each is the mean over all visible patches, weighted with the inverse square of the distance.

    Args:
        head (ConvMAEPretrainHead): A head with ``norm_pix``.
        reconstructions (Tensor): What it gives, shape (B, C, H, W).
        images (Tensor): The originals, shape (B, C, H, W).
        removed (Tensor): Where something was removed, shape (B, 1, H, W), bool.

    Returns:
        Tensor: Shape (B, C, H, W). Visible patches are those of the images.
    """
    size = head.patch_size
    grid = images.shape[-2] // size, images.shape[-1] // size
    patches = head.patchify(images)  # (B, L, P)
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    normalised = (head.patchify(reconstructions) - mean) / (var + 1e-6).sqrt()
    gone = removed[:, 0, ::size, ::size].flatten(1)  # (B, L)

    rows, columns = torch.meshgrid(*(torch.arange(edge, device=images.device) for edge in grid), indexing='ij')
    places = torch.stack([rows.flatten(), columns.flatten()], -1).float()  # (L, 2)
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    weights = distances.pow(-2) * ~gone.unsqueeze(1)  # (B, L, L): of each patch for each
    weights = weights / weights.sum(-1, keepdim=True)
    borrowed = normalised * (weights @ var.sqrt()) + weights @ mean
    return head.unpatchify(torch.where(gone[..., None], borrowed, patches), grid)


def draw_reconstructions(
    model: ConvMAE, images: Tensor, reconstructions: Tensor, removed: Tensor, out: str | Path
) -> np.ndarray:
    """Draw a row for each image: original, masked, reconstruction in two forms, and what that is without the answer.

    Of more than three channels the first three are drawn. Values are shown as they are where they lie in 0 to 255, as
    those of 8 bits do, and otherwise from the 2nd to the 98th percentile of each original.

    Args:
        model (ConvMAE): The model.
        images (Tensor): Normalised images, shape (B, C, H, W).
        reconstructions (Tensor): Of :meth:`ConvMAE.reconstruct`, shape (B, C, H, W).
        removed (Tensor): Likewise, shape (B, 1, H, W), bool.
        out (str | Path): File to write, whole or not at all. Its suffix is the format.

    Returns:
        np.ndarray: The picture, shape (H, W, 3), uint8.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the suffix is of no format that there is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = [images, images, reconstructions, torch.where(removed, reconstructions, images)]
    titles = list(COLUMNS)
    if model.head.norm_pix:
        columns.append(with_neighbours_statistics(model.head, reconstructions, images, removed))
        titles.append(NEIGHBOURS)
    preprocessor = model.data_preprocessor
    columns = [(x * preprocessor.std + preprocessor.mean).permute(0, 2, 3, 1)[..., :3].cpu() for x in columns]
    removed = removed[:, 0].cpu()
    if columns[0].shape[-1] == 2:
        columns = [x[..., :1] for x in columns]
    eight_bit = columns[0].min() >= -1 and 2 < columns[0].max() < 256 and preprocessor.std.max() < 128

    height, width = images.shape[-2:]
    figure = Figure(
        figsize=(2 * len(columns), 2 * len(images) * height / width + 0.3 + 0.4 * model.head.norm_pix),
        layout='constrained',
    )
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for index, row in enumerate(axes):
        original = columns[0][index].flatten()
        low, high = (0.0, 255.0) if eight_bit else torch.quantile(original, torch.tensor([0.02, 0.98])).tolist()
        for place, (axis, column) in enumerate(zip(row, columns)):
            picture = ((column[index] - low) / max(high - low, 1e-12)).clamp(0, 1)
            if place == 1:
                picture = torch.where(removed[index, ..., None], 0.5, picture)
            axis.imshow(picture.expand(-1, -1, 3).numpy())
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    if model.head.norm_pix:
        figure.supxlabel(NOTE, fontsize=7)
    out = Path(out)
    with write_whole(out) as partial:
        figure.savefig(partial, dpi=150, format=out.suffix[1:] or 'png')
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
