from types import SimpleNamespace

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get
from mmengine.logging import print_log
from mmpretrain.datasets import RandomResizedCrop
from PIL import Image

from mmconvmae.registry import TRANSFORMS

from .image_file import ORIENTATIONS, ImageFile, ImageFileError, reason, unreadable


class ImageLoader:
    """Reads images for a pipeline.

    Args:
        in_channels (int): Number of channels, see :meth:`ImageFile.read`.
        full_scale (float | None): What the largest value of a file's depth becomes, None for the file's own units.
        backend_args (dict | None): Of mmengine's file backend.
    """

    def __init__(self, in_channels: int, full_scale: float | None, backend_args: dict | None) -> None:
        self.in_channels = in_channels
        self.full_scale = full_scale
        self.backend_args = backend_args
        self._said_not_finite = False

    def open(self, path: str) -> ImageFile:
        """Read a file and its header.

        Args:
            path (str): The file.

        Returns:
            ImageFile: The image.

        Raises:
            ImageFileError: If there is no such file, or it is not an image.
        """
        try:
            content = get(path, backend_args=self.backend_args)
        except OSError as error:
            raise unreadable(path, reason(error)) from error
        return ImageFile(path, content)

    def read(self, file: ImageFile, reduce: int = 1) -> np.ndarray:
        """Decode an image and scale its values.

        Args:
            file (ImageFile): The image.
            reduce (int): How much shorter the edges of a JPEG become. Defaults to 1.

        Returns:
            np.ndarray: Shape (H, W, C), blue first where C is 3, as everywhere in mmcv.

        Raises:
            ImageFileError: If the image cannot be used.
        """
        if self.full_scale is not None and file.full_scale is None:
            raise ImageFileError(
                f'The image {file.path} has values of type {file.dtype}, which have no largest one that full_scale '
                'could refer to; leave out full_scale, and give mean and std in the units of the files.'
            )
        image = file.read(self.in_channels, reduce)
        if file.num_not_finite and not self._said_not_finite:
            self._said_not_finite = True  # there may be thousands; scan_images.py counts them
            print_log(
                f'{file.num_not_finite} values of the image {file.path} are not finite and get the mean of the others '
                'in their channel. The same is done with other images, without a word.',
                logger='current',
            )
        if self.full_scale is not None:
            image = image.astype(np.float32) * np.float32(self.full_scale / file.full_scale)
        return image[..., ::-1] if self.in_channels == 3 else image


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """Load an image of any depth and number of channels, and stop with its path where it is damaged.

    mmcv's decoders fill the missing part of a truncated file with grey and clip 16 bits to 8; :class:`ImageFile` does
    neither.

    Args:
        in_channels (int): Number of channels, see :meth:`ImageFile.read`. Defaults to 3.
        full_scale (float, optional): What the largest value of a file's depth becomes, so that 8 and 16 bits can be
            mixed: with 255 values of 16 bits are divided by 257. Defaults to None, the file's own units.
        to_float32 (bool): Whether to convert values. Defaults to False.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        ImageFileError: If the file cannot be read or decoded to its end, has other channels, or has no largest value
            where ``full_scale`` needs one.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        full_scale: float | None = None,
        to_float32: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(to_float32=to_float32, backend_args=backend_args)
        self.loader = ImageLoader(in_channels, full_scale, backend_args)

    def transform(self, results: dict) -> dict:
        """Load the image.

        Args:
            results (dict): Has the path under ``img_path``.

        Returns:
            dict: The same with ``img`` (H, W, C), blue first where C is 3, and its shapes.
        """
        img = self.loader.read(self.loader.open(results['img_path']))
        img = np.ascontiguousarray(img, dtype=np.float32 if self.to_float32 else None)
        return dict(results, img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(RandomResizedCrop):
    """Load an image and take a random crop of it, resized with antialiased bicubic interpolation.

    Gives what :class:`LoadWholeImage` and mmpretrain's ``RandomResizedCrop`` with Pillow give, for the same random
    numbers, and is faster: a JPEG is decoded at the smallest of its scales (1, 1/2, 1/4, 1/8) in which the crop still
    has as many pixels as the result. An image that is loaded already, as by :class:`RepeatedAugmentation`, is cropped
    as it is.

    Args:
        scale (int | tuple[int, int]): Height and width of the result.
        in_channels (int): As of :class:`LoadWholeImage`. Defaults to 3.
        full_scale (float, optional): As of :class:`LoadWholeImage`. Defaults to None.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.
        **kwargs: Arguments of mmpretrain's ``RandomResizedCrop``: ``crop_ratio_range``, ``aspect_ratio_range`` and
            ``max_attempts``.

    Raises:
        ImageFileError: As :class:`LoadWholeImage`.
    """

    # mmpretrain's list of them has this one twice, because a subclass of its own has it too, so that mmcv's
    # TransformBroadcaster takes each call for two and stops.
    _methods_with_randomness = ['rand_crop_params']

    def __init__(
        self,
        scale: int | tuple[int, int],
        *,
        in_channels: int = 3,
        full_scale: float | None = None,
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(scale, **kwargs)
        self.loader = ImageLoader(in_channels, full_scale, backend_args)

    def transform(self, results: dict) -> dict:
        """Load and crop the image.

        Args:
            results (dict): Has the path under ``img_path``, or the whole image under ``img``.

        Returns:
            dict: The same with ``img`` (H, W, C), blue first where C is 3, and its shapes.
        """
        if 'img' in results:
            top, left, rows, columns = self.rand_crop_params(results['img'])
            box = np.array([top, left, top + rows, left + columns])
            img = resize_crop(results['img'], box, tuple(self.scale))
            return dict(results, img=img, img_shape=img.shape[:2])
        file = self.loader.open(results['img_path'])
        width, height = file.size
        top, left, rows, columns = self.rand_crop_params(SimpleNamespace(shape=(height, width)))
        reduce = 1
        if file.format == 'JPEG':
            shortest = min(rows / self.scale[0], columns / self.scale[1])
            reduce = max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= shortest)
        img = self.loader.read(file, reduce)
        # The last pixel of a reduced image may stand for fewer; where the orientation flips the image it comes first.
        _, *flips = ORIENTATIONS[file.orientation]
        start = np.where(flips, np.subtract(img.shape[:2], np.divide(file.size[::-1], reduce)), 0)
        box = np.array([top, left, top + rows, left + columns]) / reduce + np.tile(start, 2)
        img = resize_crop(img, box, tuple(self.scale))
        return dict(results, img=img, img_shape=img.shape[:2], ori_shape=(height, width))


def resize_crop(image: np.ndarray, box: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """Cut out a box and resize it, bicubic and with antialiasing.

    Args:
        image (np.ndarray): Shape (H, W, C).
        box (np.ndarray): Top, left, bottom and right, in pixels; may lie between them for uint8 and float32.
        scale (tuple[int, int]): Height and width of the result.

    Returns:
        np.ndarray: Shape (*scale, C), uint8 if the image is, float32 otherwise.
    """
    (top, left), (bottom, right) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    crop = image[top:bottom, left:right]
    if (box != (top, left, bottom, right)).any():
        # Only Pillow cuts between pixels. It takes longer, which does not count beside decoding a large photograph.
        inner = tuple(box[[1, 0, 3, 2]] - (left, top, left, top))
        channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in crop.transpose(2, 0, 1)]
        return np.stack([x.resize(scale[::-1], Image.Resampling.BICUBIC, box=inner) for x in channels], -1)
    # To copy channels in reverse takes three times as long as to resize them.
    step = -1 if crop.strides[-1] < 0 else 1
    crop = crop[..., ::step]
    # PyTorch warns of arrays that cannot be written, which Pillow's are.
    crop = np.require(crop, np.uint8 if image.dtype == np.uint8 else np.float32, ['C', 'W'])
    tensor = torch.from_numpy(crop).permute(2, 0, 1)[None]  # (1, C, H, W), channels last
    resized = torch.nn.functional.interpolate(tensor, scale, mode='bicubic', antialias=True)
    return resized[0].permute(1, 2, 0).numpy()[..., ::step]
