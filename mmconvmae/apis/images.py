"""Images of any number of channels, and videos, prepared for a backbone."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from mmconvmae.datasets import LoadClip
from mmconvmae.datasets.loading import resize_crop


def load_center_crop(path: str, loader: BaseTransform, size: tuple[int, int], short_edge: int) -> Tensor:
    """Load an image, resize it by its shorter edge and cut its middle out, as the test pipelines of classification do.

    Args:
        path (str): The file.
        loader (BaseTransform): Loads it, a :class:`LoadWholeImage`.
        size (tuple[int, int]): Height and width of the crop, neither more than ``short_edge``.
        short_edge (int): What the shorter edge becomes first.

    Returns:
        Tensor: The crop, shape (C, height, width), blue first where C is 3; uint8 or float32.

    Raises:
        ImageFileError: If the image cannot be used.
    """
    return _center_crop(loader(dict(img_path=path))['img'], size, short_edge)


def _center_crop(image: np.ndarray, size: tuple[int, int], short_edge: int) -> Tensor:
    shorter = min(image.shape[:2])
    image = _resize(image, *(short_edge * edge // shorter for edge in image.shape[:2]))
    # Rounded as by mmcv's CenterCrop.
    top, left = (max(0, round((edge - cut) / 2)) for edge, cut in zip(image.shape[:2], size))
    return _to_tensor(image[top : top + size[0], left : left + size[1]])


def load_center_clips(path: str, loader: LoadClip, size: tuple[int, int], short_edge: int) -> Tensor:
    """Load clips of a video, resize their frames by the shorter edge and cut their middle out.

    Args:
        path (str): The file.
        loader (LoadClip): Loads them.
        size (tuple[int, int]): Height and width of the crop, neither more than ``short_edge``.
        short_edge (int): What the shorter edge becomes first.

    Returns:
        Tensor: The clips, shape (views, C, T, height, width), blue first, uint8.

    Raises:
        VideoFileError: If the video cannot be used.
    """
    video = loader(dict(img_path=path))
    frames = torch.stack([_center_crop(frame, size, short_edge) for frame in video['imgs']], 1)  # (C, views * T, H, W)
    return frames.unflatten(1, (video['num_clips'], -1)).transpose(0, 1)


def load_whole(path: str, loader: BaseTransform, short_edge: int, stride: int) -> Tensor:
    """Load an image and resize all of it so that both edges are multiples of the stride.

    Args:
        path (str): The file.
        loader (BaseTransform): Loads it, a :class:`LoadWholeImage`.
        short_edge (int): What the shorter edge becomes, a multiple of the stride.
        stride (int): Total stride of the backbone.

    Returns:
        Tensor: Shape (C, H, W), blue first where C is 3; uint8 or float32. The longer edge is as long as the
        proportions have it, up to half a stride.

    Raises:
        ImageFileError: If the image cannot be used.
    """
    image = loader(dict(img_path=path))['img']
    scale = short_edge / (min(image.shape[:2]) * stride)
    return _to_tensor(_resize(image, *(round(edge * scale) * stride for edge in image.shape[:2])))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return resize_crop(image, np.array([0, 0, *image.shape[:2]]), (height, width))


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
