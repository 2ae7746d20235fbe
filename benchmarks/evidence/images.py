"""Images in the memory of the device, and crops of them made there.

A canvas is an image squeezed into a square, with its ratio of width to height kept beside it: images of all shapes are
one tensor, and a crop of any shape is a sampling of it.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.utils import ProgressBar
from PIL import Image
from torch import Tensor

from mmconvmae.datasets import find_images

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass
class Canvases:
    """Images in memory.

    Args:
        images (Tensor): Shape (N, 3, edge, edge), uint8, red first.
        ratios (Tensor): Width over height of each image, shape (N,).
        labels (Tensor, optional): Classes, shape (N,), int64; or of pixels, shape (N, 1, H, W), uint8, 255 for none.
    """

    images: Tensor
    ratios: Tensor
    labels: Tensor | None = None

    def take(self, ids: Tensor) -> 'Canvases':
        """Take some images."""
        return Canvases(self.images[ids], self.ratios[ids], None if self.labels is None else self.labels[ids])


def load_canvases(paths: list[Path], edge: int, device: str) -> Canvases:
    """Load images as canvases.

    Args:
        paths (list[Path]): Image files.
        edge (int): Edge of the canvases, in pixels.
        device (str): Where to keep them.

    Returns:
        Canvases: Images, without labels.
    """
    images, ratios = np.empty((len(paths), edge, edge, 3), np.uint8), []
    progress = ProgressBar(len(paths))

    def read(path: Path) -> tuple[Image.Image, float]:
        with Image.open(path) as file:
            return file.convert('RGB').resize((edge, edge), Image.BICUBIC), file.width / file.height

    with ThreadPoolExecutor() as pool:
        for i, (image, ratio) in enumerate(pool.map(read, paths)):
            images[i] = image
            ratios.append(ratio)
            progress.update()
    print()
    return Canvases(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device), torch.tensor(ratios).to(device)
    )


def load_classes(folder: Path, edge: int, device: str) -> Canvases:
    """Load the images of a folder that has a folder for each class; classes are numbered in alphabetical order."""
    names = sorted(find_images(str(folder))[0])
    classes = sorted({name.split('/')[0] for name in names})
    canvases = load_canvases([folder / name for name in names], edge, device)
    canvases.labels = torch.tensor([classes.index(name.split('/')[0]) for name in names], device=device)
    return canvases


def load_masks(folder: Path, part: str, edge: int, device: str) -> Canvases:
    """Load images of one size and the classes of their pixels, in ADE20K's layout: 0 is none, 1 the first class."""
    names = sorted(find_images(str(folder / 'images' / part))[0])
    canvases = load_canvases([folder / 'images' / part / name for name in names], edge, device)
    masks = [np.asarray(Image.open(folder / 'annotations' / part / f'{Path(name).stem}.png')) for name in names]
    canvases.labels = torch.from_numpy(np.stack(masks) - np.uint8(1))[:, None].to(device)  # 0 becomes 255
    return canvases


def random_grid(ratios: Tensor, size: int, area: tuple[float, float], aspect: float) -> Tensor:
    """Draw crops, and flip half of them: where in a canvas the pixels of each lie.

    Args:
        ratios (Tensor): Width over height of each image, shape (B,).
        size (int): Edge of the crops.
        area (tuple[float, float]): Share of the image that a crop covers.
        aspect (float): Largest ratio of the edges of a crop.

    Returns:
        Tensor: Shape (B, size, size, 2), as ``torch.nn.functional.grid_sample`` takes it.
    """

    def draw(low: float, high: float) -> Tensor:
        return torch.empty_like(ratios).uniform_(low, high)

    share, ratio = draw(*area), draw(-np.log(aspect), np.log(aspect)).exp()
    width, height = (share * ratio / ratios).sqrt().clamp(max=1), (share / ratio * ratios).sqrt().clamp(max=1)
    x, y = draw(-1, 1) * (1 - width), draw(-1, 1) * (1 - height)  # of the centre, from -1 to 1 over the canvas
    width = width * (draw(0, 1) < 0.5).mul(2).sub(1)  # a negative width is a flip
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)  # (B, 2, 3)
    return F.affine_grid(theta, (len(ratios), 1, size, size), align_corners=False)


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Cut crops out of canvases and normalise them: (B, 3, H, W), uint8, and (B, h, w, 2) become (B, 3, h, w)."""
    crops = F.grid_sample(images.float(), grid, padding_mode='reflection', align_corners=False)
    # One channel after the other: constants that are made on a CPU could not be in a recorded step.
    return torch.stack([(crops[:, i] - MEAN[i]) / STD[i] for i in range(3)], 1)


def centre(canvases: Canvases, size: int) -> Tensor:
    """The middle squares of images, normalised, shape (N, 3, size, size)."""
    ratios = canvases.ratios
    width, height = (1 / ratios).clamp(max=1), ratios.clamp(max=1)
    zero = torch.zeros_like(width)
    theta = torch.stack([torch.stack([width, zero, zero], 1), torch.stack([zero, height, zero], 1)], 1)
    return sample(canvases.images, F.affine_grid(theta, (len(ratios), 1, size, size), align_corners=False))
