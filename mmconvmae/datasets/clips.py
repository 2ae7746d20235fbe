"""Steps of a pipeline for clips. In between, mmcv's ``TransformBroadcaster`` gives all frames the same augmentation:

dict(type='TransformBroadcaster', mapping=dict(img='imgs'), auto_remap=True, share_random_params=True, transforms=[…])
"""

import logging

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.logging import print_log

from mmconvmae.registry import TRANSFORMS
from mmconvmae.utils import check_integer, check_number

from .loading import resize_crop
from .video_file import VideoFile

# Frames of a video, from which on it is worth to seek a clip in place of decoding all that comes before: a minute.
LONG = 1500


@TRANSFORMS.register_module()
class LoadClip(BaseTransform):
    """Choose frames of a video and decode them.

    Where the container's number of frames is wrong, the choice is made again with the right one.

    Args:
        sampler (dict): Config of a :class:`DenseClip`, :class:`SegmentClip`, :class:`DenseViews` or
            :class:`SegmentViews`.
        decoder (str): ``'opencv'``, ``'av'`` or ``'decord'``. Defaults to 'opencv'.

    Raises:
        VideoFileError: If the video cannot be used.
    """

    def __init__(self, sampler: dict, decoder: str = 'opencv') -> None:
        self.sampler = TRANSFORMS.build(sampler)
        self.decoder = decoder
        self._said = set()

    def transform(self, results: dict) -> dict:
        """Load the clips.

        Args:
            results (dict): Has the path of the video under ``img_path``.

        Returns:
            dict: The same with ``imgs``, a list of frames (H, W, 3), blue first, clip after clip; ``num_clips``; and
            their shapes.
        """
        file = VideoFile(results['img_path'], self.decoder)
        if not file.num_frames:
            # The container does not say, and no video has as many.
            file.read([2**31])
        frames = None
        while frames is None:
            indices = self.sampler(file.num_frames)
            frames = file.read(indices.flatten())
        if file.num_frames < self.sampler.span:
            self._say_once(
                'short',
                f'The video {file.path} has {file.num_frames} frames, and a clip goes over {self.sampler.span}; its '
                'last frame is repeated. The same is done with other short videos, without a word; take a smaller '
                '`frame_interval` or fewer frames to avoid it.',
            )
        if file.num_frames > LONG and self.decoder != 'decord':
            self._say_once(
                'long',
                f'The video {file.path} has {file.num_frames} frames, and `decoder={self.decoder!r}` decodes all that '
                "come before a clip, which takes seconds; `decoder='decord'` goes to the clip at once. Or cut long "
                'videos into pieces.',
            )
        shape = frames.shape[1:3]
        return dict(results, imgs=list(frames), num_clips=len(indices), img_shape=shape, ori_shape=shape)

    def _say_once(self, what: str, sentence: str) -> None:
        if what not in self._said:  # there may be thousands of such videos
            self._said.add(what)
            print_log(sentence, logger='current', level=logging.WARNING)


@TRANSFORMS.register_module()
class MultiScaleCrop(BaseTransform):
    """Cut out one of a few sizes at one of 13 places, and resize it, as VideoMAE does in pretraining.

    Args:
        scale (int): Edge of the result, a square.
        ratios (tuple[float, ...]): Edges to choose from, as shares of the image's shorter edge, from the largest;
            height and width are the same or neighbours. Defaults to (1, 0.875, 0.75, 0.66).
    """

    # In quarters of what is left beside the crop: corners and middle, edges' middles, and halfway to the corners.
    PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))

    def __init__(self, scale: int, ratios: tuple[float, ...] = (1, 0.875, 0.75, 0.66)) -> None:
        check_integer('scale', scale)
        for ratio in ratios:
            check_number('ratios', ratio, 1e-6, 1)
        self.scale = scale
        self.ratios = ratios

    @cache_randomness
    def rand_crop_params(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw a crop.

        Args:
            height (int): Of the image.
            width (int): Of the image.

        Returns:
            tuple[int, int, int, int]: Top, left, height and width.
        """
        edges = [int(min(height, width) * ratio) for ratio in self.ratios]
        # An edge that is nearly that of the result is cut there, and not resized.
        edges = [
            self.scale if abs(edge - self.scale) < 3 and self.scale <= min(height, width) else edge for edge in edges
        ]
        pairs = [(a, b) for i, a in enumerate(edges) for j, b in enumerate(edges) if abs(i - j) <= 1]
        rows, columns = pairs[np.random.randint(len(pairs))]
        down, right = self.PLACES[np.random.randint(len(self.PLACES))]
        return (height - rows) // 4 * down, (width - columns) // 4 * right, rows, columns

    def transform(self, results: dict) -> dict:
        """Crop a frame.

        Args:
            results (dict): Has ``img`` (H, W, C).

        Returns:
            dict: The same with ``img`` (scale, scale, C).
        """
        top, left, rows, columns = self.rand_crop_params(*results['img'].shape[:2])
        box = np.array([top, left, top + rows, left + columns])
        img = resize_crop(results['img'], box, (self.scale, self.scale))
        return dict(results, img=img, img_shape=img.shape[:2])


@TRANSFORMS.register_module()
class ThreeCrop(BaseTransform):
    """Cut three squares out of each clip along its longer edge, of the size of the shorter: start, middle, end."""

    def transform(self, results: dict) -> dict:
        """Crop all clips.

        Args:
            results (dict): Has ``imgs``, frames of one size, and ``num_clips``.

        Returns:
            dict: The same with three times as many clips in ``imgs``, the crops of one after the other.
        """
        frames = np.stack(results['imgs'])
        frames = frames.reshape(results['num_clips'], -1, *frames.shape[1:])  # (clips, T, H, W, C)
        height, width = frames.shape[2:4]
        edge = min(height, width)
        starts = [(round((height - edge) / 2 * i), round((width - edge) / 2 * i)) for i in range(3)]
        crops = np.stack([frames[:, :, top : top + edge, left : left + edge] for top, left in starts], 1)
        return dict(
            results,
            imgs=list(crops.reshape(-1, *crops.shape[3:])),
            num_clips=crops.shape[0] * 3,
            img_shape=(edge, edge),
        )


@TRANSFORMS.register_module()
class FormatClips(BaseTransform):
    """Put frames together into what ``PackInputs`` takes for a model of clips."""

    def transform(self, results: dict) -> dict:
        """Stack the frames.

        Args:
            results (dict): Has ``imgs`` and ``num_clips``.

        Returns:
            dict: The same with ``img`` of shape (C, T, H, W), or of several clips, the views of a test,
            (views, C, T, H, W); without ``imgs``.
        """
        frames = np.stack(results['imgs'])
        frames = frames.reshape(results['num_clips'], -1, *frames.shape[1:])  # (views, T, H, W, C)
        clips = np.ascontiguousarray(frames.transpose(0, 4, 1, 2, 3))
        # What was broadcast is a list with an entry for each frame; all are alike.
        number = len(results['imgs'])
        first = {key: x[0] for key, x in results.items() if isinstance(x, list) and len(x) == number}
        results = {**results, **first, 'img': clips[0] if len(clips) == 1 else clips, 'img_shape': clips.shape[-2:]}
        del results['imgs']
        return results
