from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from mmconvmae.models.heads import ConvMAEPretrainHead
from mmconvmae.models.selfsup import ConvMAE
from mmconvmae.utils import write_whole

COLUMNS = ('original', 'masked', 'reconstruction', 'reconstruction + visible')
# With `norm_pix`, a second line of the titles and a column more.
BORROWED = ('', '', 'brightness, contrast: original', 'brightness, contrast: original')
NEIGHBOURS = ('reconstruction + visible', 'brightness, contrast: neighbours')
NOISE = 'What is visible has no loss, so the third column shows noise there.'
NOTE = (
    'The model predicts patches without their brightness and contrast. Those of the original know the answer;\n'
    'those of the visible patches near by, in the last column, do not.'
)


def with_neighbours_statistics(
    head: ConvMAEPretrainHead, reconstructions: Tensor, images: Tensor, removed: Tensor
) -> Tensor:
    """Give removed patches the mean and deviation of the visible patches around instead of their own.

    Each is the mean over all visible patches, weighted with the inverse square of the distance. Where cells of patches
    are removed, a patch has the statistics of its own visible pixels.

    Args:
        head (ConvMAEPretrainHead): A head with ``norm_pix``.
        reconstructions (Tensor): What it gives, shape (B, C, H, W).
        images (Tensor): The originals, shape (B, C, H, W).
        removed (Tensor): Where something was removed, shape (B, 1, H, W), bool.

    Returns:
        Tensor: Shape (B, C, H, W). What is visible is that of the images.
    """
    size = head.patch_size
    grid = images.shape[-2] // size, images.shape[-1] // size
    patches = head.patchify(images)  # (B, L, P)
    mean, deviation = head.patch_statistics(patches)
    normalised = (head.patchify(reconstructions) - mean) / deviation

    gone = head.patchify(removed.expand_as(images))  # (B, L, P)
    count = (~gone).sum(-1, keepdim=True)  # (B, L, 1), of visible numbers
    mean = patches.masked_fill(gone, 0).sum(-1, keepdim=True) / count.clamp(min=1)
    var = (patches - mean).square().masked_fill(gone, 0).sum(-1, keepdim=True) / (count - 1).clamp(min=1)

    rows, columns = torch.meshgrid(*(torch.arange(edge, device=images.device) for edge in grid), indexing='ij')
    places = torch.stack([rows.flatten(), columns.flatten()], -1).float()  # (L, 2)
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    weights = distances.pow(-2) * (count > 0).mT  # (B, L, L): of each patch for each
    weights = weights / weights.sum(-1, keepdim=True)
    mean, deviation = (torch.where(count > 0, own, weights @ own) for own in (mean, var.sqrt()))
    return head.unpatchify(torch.where(gone, normalised * deviation + mean, patches), grid)


def draw_reconstructions(
    model: ConvMAE, images: Tensor, reconstructions: Tensor, removed: Tensor, out: str | Path
) -> np.ndarray:
    """Draw a row for each image: original, masked, reconstruction in two forms, and what that is without the answer.

    Of more than three channels the first three are drawn, of two the first. Values of 0 to 255, as those of 8 bits, are
    shown as they are, and others from the 2nd to the 98th percentile of each original.

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
    titles, note = list(COLUMNS), NOISE
    if model.head.norm_pix:
        columns.append(with_neighbours_statistics(model.head, reconstructions, images, removed))
        titles = ['\n'.join(lines) for lines in (*zip(COLUMNS, BORROWED), NEIGHBOURS)]
        note = f'{NOTE} {NOISE}'
    columns = [to_values(model.data_preprocessor, x) for x in columns]  # (B, H, W, 1 or 3) each
    low, high = _display_range(columns[0], model.data_preprocessor)
    columns = [((x - low) / np.maximum(high - low, 1e-12)).clip(0, 1) for x in columns]
    columns[1] = np.where(removed.permute(0, 2, 3, 1).cpu().numpy(), 0.5, columns[1])

    height, width = images.shape[-2:]
    figure = Figure(
        figsize=(2 * len(columns), 2 * len(images) * height / width + 0.5 + 0.3 * model.head.norm_pix),
        dpi=150,
        layout='constrained',
    )
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for row, pictures in zip(axes, zip(*columns)):
        for axis, picture in zip(row, pictures):
            axis.imshow(np.broadcast_to(picture, (height, width, 3)))
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    figure.supxlabel(note, fontsize=7)
    canvas.draw()
    figure.set_layout_engine('none')  # which would move things a little when drawn again
    out = Path(out)
    with write_whole(out) as partial:
        figure.savefig(partial, format=out.suffix[1:] or 'png')
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def to_values(preprocessor: nn.Module, images: Tensor) -> np.ndarray:
    """Undo a data preprocessor.

    Args:
        preprocessor (nn.Module): With ``mean`` and ``std``, or without.
        images (Tensor): Shape (B, C, H, W).

    Returns:
        np.ndarray: Shape (B, H, W, 3), red first, or (B, H, W, 1).
    """
    if hasattr(preprocessor, 'mean'):
        images = images * preprocessor.std.view(-1, 1, 1) + preprocessor.mean.view(-1, 1, 1)
    if images.shape[1] == 3 and not getattr(preprocessor, '_channel_conversion', True):
        images = images.flip(1)  # left blue first, as they are loaded
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1]
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _display_range(originals: np.ndarray, preprocessor: nn.Module) -> tuple[float | np.ndarray, float | np.ndarray]:
    """What is shown as black and as white: two numbers, or two arrays of shape (B, 1, 1, 1)."""
    # Percentiles, since resizing floats goes a little beyond 0 and 255. A deviation of more is of deeper images, of
    # which some may be dark.
    low, high = np.percentile(originals, (2, 98))
    if low >= -1 and 2 < high < 256 and np.max(getattr(preprocessor, 'std', torch.ones(1)).cpu().numpy()) < 256:
        return 0.0, 255.0
    return tuple(np.percentile(originals, (2, 98), axis=(1, 2, 3), keepdims=True))
