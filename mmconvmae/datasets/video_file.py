"""Videos as they lie in people's folders: short, damaged, with a wrong number of frames in the container, or none."""

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from mmengine.logging import print_log

from mmconvmae.utils import check_choice

from .image_file import MediaFileError

# What the decoders open, in lower case; a list may name others.
VIDEO_SUFFIXES = ('.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ogv', '.ts', '.webm', '.wmv')


class VideoFileError(MediaFileError):
    """A video that cannot be used. The message says which, why and what to do."""


class VideoFile:
    """A video in a file, whose frames are decoded one after the other as far as they are needed.

    Nothing is sought in the file: where it has few key frames, seeking is slower and not exact.

    Args:
        path (str): The file, on this machine.
        decoder (str): What decodes it: ``'opencv'``, which is there already, ``'av'`` (PyAV) or ``'decord'``. Defaults
            to 'opencv'.

    Attributes:
        num_frames (int): How many frames the container says there are, 0 where it says nothing; once :meth:`read` has
            met the end, how many there are.

    Raises:
        ImportError: If the decoder is not installed.
        ValueError: If there is no such decoder.
        VideoFileError: If there is no such file, or no video in it.
    """

    def __init__(self, path: str, decoder: str = 'opencv') -> None:
        check_choice('decoder', decoder, list(DECODERS))
        if not Path(path).is_file():
            raise VideoFileError(f'There is no video {path}; check the list and `data_root`.')
        if not Path(path).stat().st_size:
            raise VideoFileError(f'The video {path} is empty (0 bytes); copy it again, or take it out.')
        self.path = path
        count, self._decode = DECODERS[decoder]
        self.num_frames = self._declared = max(0, count(path))

    def read(self, indices: Sequence[int]) -> np.ndarray | None:
        """Decode frames.

        Args:
            indices (Sequence[int]): Their numbers, from 0, in any order and as often as wanted.

        Returns:
            np.ndarray | None: Shape (len(indices), H, W, 3), blue first, uint8. None where the video ends before: then
            ``num_frames`` is right.

        Raises:
            VideoFileError: If not a single frame can be decoded, or frames have different sizes.
        """
        wanted = sorted({int(i) for i in indices})
        frames, reached = self._decode(self.path, wanted)
        if not reached:
            raise VideoFileError(
                f'No frame of the video {self.path} can be decoded; it is damaged, or of a codec that the decoder does '
                'not know. Encode it anew (as h264 in mp4), try another `decoder`, or take it out.'
            )
        if len(frames) < len(wanted):
            if reached != self._declared:
                print_log(
                    f'The video {self.path} ends after {reached} frames, and its container says {self._declared}; it '
                    'is used as far as it goes.',
                    logger='current',
                    level=logging.WARNING,
                )
            self.num_frames = reached
            return None
        sizes = {frame.shape for frame in frames.values()}
        if len(sizes) > 1:
            raise VideoFileError(
                f'The frames of the video {self.path} have different sizes ({sorted(sizes)}); encode it anew.'
            )
        return np.stack([frames[int(i)] for i in indices])


# A pair for each decoder: how many frames a file says it has, 0 where it says nothing; and the frames with the wanted
# numbers, sorted ones, with how many frames there were up to the last of them or to the end.


def _count_opencv(path: str) -> int:
    capture = _open_opencv(path)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count


def _decode_opencv(path: str, wanted: list[int]) -> tuple[dict[int, np.ndarray], int]:
    capture, frames, reached = _open_opencv(path), {}, 0
    while reached <= wanted[-1] and capture.grab():
        if reached in wanted:
            decoded, frame = capture.retrieve()
            if not decoded:
                break
            frames[reached] = frame
        reached += 1
    capture.release()
    return frames, reached


def _open_opencv(path: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise _no_video(path)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV 4.11 does not turn the videos of phones by default
    return capture


def _no_video(path: str) -> VideoFileError:
    return VideoFileError(
        f'{path} cannot be opened as a video: it is damaged, another kind of file, or has sound alone. Encode it anew, '
        'or take it out.'
    )


def _count_av(path: str) -> int:
    with _open_av(path) as container:
        return container.streams.video[0].frames


def _decode_av(path: str, wanted: list[int]) -> tuple[dict[int, np.ndarray], int]:
    errors, frames, reached = _require('av').error.FFmpegError, {}, 0
    with _open_av(path) as container:
        try:
            for frame in container.decode(video=0):
                if reached in wanted:
                    # Phones write how the picture is to be turned; the other decoders turn it.
                    frames[reached] = np.rot90(frame.to_ndarray(format='bgr24'), frame.rotation // 90)
                reached += 1
                if reached > wanted[-1]:
                    break
        except errors:
            pass  # damaged from here on; the caller sees how far it went
    return frames, reached


def _open_av(path: str):
    av = _require('av')
    if not hasattr(av.VideoFrame, 'rotation'):
        raise ImportError(
            f'PyAV {av.__version__} does not say how the videos of phones are turned; `pip install --upgrade av`, or '
            "leave `decoder` out for OpenCV's."
        )
    try:
        container = av.open(path)
    except av.error.FFmpegError as error:
        raise _no_video(path) from error
    if not container.streams.video:
        container.close()
        raise _no_video(path)
    return container


def _count_decord(path: str) -> int:
    return len(_open_decord(path))


def _decode_decord(path: str, wanted: list[int]) -> tuple[dict[int, np.ndarray], int]:
    reader, frames = _open_decord(path), {}
    for number in wanted:
        if number >= len(reader):
            return frames, len(reader)
        try:
            frame = reader[number].asnumpy()
        except _require('decord').DECORDError:
            return frames, number
        height, width, _ = frame.shape
        # decord takes what pads the rows of pictures 16, 32 or 48 pixels wide for a fourth channel.
        frames[number] = frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)[..., ::-1]
    return frames, wanted[-1] + 1


def _open_decord(path: str):
    decord = _require('decord')
    try:
        return decord.VideoReader(path, num_threads=1)
    except (RuntimeError, decord.DECORDError) as error:
        raise _no_video(path) from error


def _require(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`decoder='{name}'` needs the package {name}, which is not installed: `pip install "
            f"{name}`, or leave `decoder` out for OpenCV's."
        ) from error


DECODERS = {
    'opencv': (_count_opencv, _decode_opencv),
    'av': (_count_av, _decode_av),
    'decord': (_count_decord, _decode_decord),
}
