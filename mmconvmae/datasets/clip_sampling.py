"""Which frames of a video make a clip. A sampler is asked with a number of frames and gives clips as rows of numbers.

A video that is too short for a clip has its last frame repeated, as in VideoMAE; :class:`LoadClip` says so.
"""

import numpy as np

from mmconvmae.registry import TRANSFORMS
from mmconvmae.utils import check_integer


class ClipSampler:
    """What samplers share.

    Args:
        num_frames (int): Frames of a clip, T.
    """

    def __init__(self, num_frames: int = 16) -> None:
        check_integer('num_frames', num_frames)
        self.num_frames = num_frames

    @property
    def span(self) -> int:
        """The fewest frames of which a clip needs none twice."""
        return self.num_frames

    def __call__(self, total: int) -> np.ndarray:
        """Choose frames.

        Args:
            total (int): Frames of the video, 1 or more.

        Returns:
            np.ndarray: Their numbers, from 0, shape (clips, T), int64.
        """
        raise NotImplementedError


@TRANSFORMS.register_module()
class DenseClip(ClipSampler):
    """One clip of frames at a fixed distance, from a random start: for Kinetics, and in pretraining.

    Args:
        num_frames (int): Frames of a clip. Defaults to 16.
        frame_interval (int): From one of them to the next, in frames of the video. Defaults to 4.
    """

    def __init__(self, num_frames: int = 16, frame_interval: int = 4) -> None:
        super().__init__(num_frames)
        check_integer('frame_interval', frame_interval)
        self.frame_interval = frame_interval

    @property
    def span(self) -> int:
        return (self.num_frames - 1) * self.frame_interval + 1

    def __call__(self, total: int) -> np.ndarray:
        start = np.random.randint(max(1, total - self.span + 1))
        return np.minimum(start + np.arange(self.num_frames) * self.frame_interval, total - 1)[None]


@TRANSFORMS.register_module()
class SegmentClip(ClipSampler):
    """One clip of a random frame from each of as many equal segments of the video: for Something-Something.

    Args:
        num_frames (int): Frames of a clip. Defaults to 16.
    """

    def __call__(self, total: int) -> np.ndarray:
        places = np.arange(self.num_frames) + np.random.rand(self.num_frames)
        return (places * total / self.num_frames).astype(np.int64)[None]


@TRANSFORMS.register_module()
class DenseViews(DenseClip):
    """Several clips at equal distances over the whole video, for tests on Kinetics.

    Every ``frame_interval``-th frame of the video is taken first.

    Args:
        num_frames (int): Frames of a clip. Defaults to 16.
        frame_interval (int): From one of them to the next. Defaults to 4.
        num_clips (int): How many clips. Defaults to 5.
    """

    def __init__(self, num_frames: int = 16, frame_interval: int = 4, num_clips: int = 5) -> None:
        super().__init__(num_frames, frame_interval)
        check_integer('num_clips', num_clips)
        self.num_clips = num_clips

    def __call__(self, total: int) -> np.ndarray:
        frames = np.arange(0, total, self.frame_interval)
        last = max(0, len(frames) - self.num_frames)
        # One clip alone comes from the middle.
        starts = np.linspace(0, last, self.num_clips) if self.num_clips > 1 else np.array([last / 2])
        places = starts.astype(np.int64)[:, None] + np.arange(self.num_frames)
        return frames[np.minimum(places, len(frames) - 1)]


@TRANSFORMS.register_module()
class SegmentViews(ClipSampler):
    """Clips that share out equal segments of the video, for tests on Something-Something.

    Each segment is cut into as many parts as there are clips. A clip has the first frame of one part of each.

    Args:
        num_frames (int): Frames of a clip. Defaults to 16.
        num_clips (int): How many clips. Defaults to 2.
    """

    def __init__(self, num_frames: int = 16, num_clips: int = 2) -> None:
        super().__init__(num_frames)
        check_integer('num_clips', num_clips)
        self.num_clips = num_clips

    def __call__(self, total: int) -> np.ndarray:
        parts = np.arange(self.num_frames * self.num_clips) * total // (self.num_frames * self.num_clips)
        return parts.reshape(self.num_frames, self.num_clips).T
