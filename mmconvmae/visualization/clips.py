from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmconvmae.models.selfsup import ConvMAE
from mmconvmae.utils import write_whole

from .reconstruction import to_values

GAP = 4  # pixels between pictures


def draw_clips(model: ConvMAE, clips: Tensor, reconstructions: Tensor, removed: Tensor, out: str | Path) -> np.ndarray:
    """Draw three rows for each clip: its frames, what the model sees of them, and its reconstruction of the rest.

    Brightness and contrast of removed cubes are those of the original where the head has ``norm_pix``: the model
    predicts cubes without them.

    Args:
        model (ConvMAE): The model.
        clips (Tensor): Normalised clips, shape (B, C, T, H, W).
        reconstructions (Tensor): Of :meth:`ConvMAE.reconstruct`, shape (B, C, T, H, W).
        removed (Tensor): Likewise, shape (B, 1, 1, H, W), bool.
        out (str | Path): File to write, whole or not at all. A ``.gif`` moves, with the three pictures of a clip beside
            each other; others have the frames in a row.

    Returns:
        np.ndarray: What was drawn, (frames of the GIF or 1, H, W, 3), uint8.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the suffix is of no format that there is.
    """
    out = Path(out)
    if out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f'{out} ends in no format of pictures; name it .png, or .gif for one that moves.')
    filled = torch.where(removed, reconstructions, clips)
    rows = torch.stack([clips, clips, filled], 1).transpose(2, 3)  # (B, 3, T, C, H, W)
    values = to_values(model.data_preprocessor, rows.flatten(0, 2)).reshape(*rows.shape[:3], *rows.shape[4:], -1)
    hidden = removed[:, 0, 0].cpu().numpy()[:, None, ..., None]  # (B, 1, H, W, 1)
    values[:, 1] = np.where(hidden, 127, values[:, 1])
    values = np.broadcast_to(values, (*values.shape[:-1], 3)).clip(0, 255).round().astype(np.uint8)
    values = np.pad(values, [(0, 0)] * 3 + [(0, GAP)] * 2 + [(0, 0)], constant_values=255)  # (B, 3, T, H, W, 3)
    if out.suffix.lower() == '.gif':
        frames = values.transpose(
            2, 0, 3, 1, 4, 5
        )  # (T, B, H, 3, W, 3): clips below, and their pictures beside, each other
        frames = frames.reshape(len(frames), values.shape[0] * values.shape[3], -1, 3)
    else:
        frames = values.transpose(0, 1, 3, 2, 4, 5).reshape(1, np.prod(values.shape[:2]) * values.shape[3], -1, 3)
    first, *others = map(Image.fromarray, frames)
    moving = dict(save_all=True, append_images=others, duration=150, loop=0) if others else {}
    with write_whole(out) as partial:
        first.save(partial, format=Image.registered_extensions()[out.suffix.lower()], **moving)
    return frames
