"""Make a small labelled set of videos whose classes are motions: photographs seen through a window that moves.

The window moves left, right, up or down, comes nearer, goes back, or turns either way. Where it is in the middle of a
clip is drawn alike for all classes, and all have the same photographs, so the middle frame does not tell the class;
frames at the ends tell a little, since they lie farther out in what the motion changes.

python tools/dataset_converters/moving_photographs.py PHOTOGRAPHS OUT --clips-per-class 60
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import ProgressBar

from mmconvmae.datasets import LoadWholeImage, find_images

# What a motion changes, and by how much from the middle of the clip to its end: the window's place, along its own rows
# and columns; the logarithm of its edge; its angle.
CLASSES = {
    'left': ('right', -0.5),
    'right': ('right', 0.5),
    'up': ('down', -0.5),
    'down': ('down', 0.5),
    'nearer': ('scale', -0.3),
    'farther': ('scale', 0.3),
    'clockwise': ('angle', 0.5),
    'counterclockwise': ('angle', -0.5),
}
# In the middle of a clip each is drawn from minus to plus this.
MIDDLE = dict(right=0.3, down=0.3, scale=0.25, angle=0.5)
FRAMES_PER_SECOND = 12


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photographs', type=Path, help='folder of photographs')
    parser.add_argument('out', type=Path, help='folder to write, which must not exist')
    parser.add_argument('--clips-per-class', type=int, default=60, help='clips of each of the eight classes')
    parser.add_argument('--size', type=int, default=96, help='edge of the videos, in pixels')
    parser.add_argument('--frames', type=int, default=16, help='frames of a video')
    parser.add_argument('--seed', type=int, default=0, help='seed of what is drawn')
    return parser.parse_args()


def make_clip(photograph: np.ndarray, motion: str, size: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """See a photograph through a moving window.

    Args:
        photograph (np.ndarray): Shape (H, W, 3).
        motion (str): One of ``CLASSES``.
        size (int): Edge of the frames, in pixels.
        num_frames (int): How many.
        rng (np.random.Generator): Draws where the window is in the middle of the clip.

    Returns:
        np.ndarray: Frames of shape (T, size, size, 3), uint8.
    """
    # Half a window's diagonal and its way fit between the middle of the photograph and its sides: nothing is black.
    edge = min(photograph.shape[:2]) * 0.3
    middle = dict(zip(MIDDLE, (rng.uniform(-spread, spread) for spread in MIDDLE.values())))
    changing, amount = CLASSES[motion]
    frames = []
    for time in np.linspace(-1, 1, num_frames):
        now = middle | {changing: middle[changing] + amount * time}
        window = edge * np.exp(now['scale'])
        turn = np.array([[np.cos(now['angle']), -np.sin(now['angle'])], [np.sin(now['angle']), np.cos(now['angle'])]])
        center = np.array(photograph.shape[1::-1]) / 2 + edge * 0.6 * turn @ [now['right'], now['down']]
        # From a pixel of the frame to the point of the photograph.
        matrix = np.zeros((2, 3))
        matrix[:, :2] = turn * window / size
        matrix[:, 2] = center - matrix[:, :2].sum(1) * (size - 1) / 2
        frames.append(cv2.warpAffine(photograph, matrix, (size, size), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP))
    return np.stack(frames)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Encode a video.

    Args:
        path (Path): The file, ending in .mp4.
        frames (np.ndarray): Shape (T, H, W, 3), blue first.

    Raises:
        OSError: If it cannot be written.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), FRAMES_PER_SECOND, frames.shape[2:0:-1])
    if not writer.isOpened():
        raise OSError(f'{path} cannot be written; check the folder, and that this OpenCV encodes mp4v.')
    for frame in frames:
        writer.write(frame)
    writer.release()


def main() -> None:
    args = parse_args()
    try:
        if args.out.exists():
            raise FileExistsError(f'{args.out} is there already; name another folder, or take that one away')
        paths, _ = find_images(str(args.photographs))
        if not paths:
            raise ValueError(f'there is no photograph in {args.photographs}')
        partial = args.out.with_name(f'{args.out.name}.part')
        partial.mkdir(parents=True)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: nothing was written: {error}')
    rng = np.random.default_rng(args.seed)
    paths = rng.permutation(paths)
    load, lines = LoadWholeImage(), []
    progress = ProgressBar(args.clips_per_class * len(CLASSES))
    for number in range(args.clips_per_class):
        photograph = np.ascontiguousarray(
            load(dict(img_path=str(args.photographs / paths[number % len(paths)])))['img']
        )
        for label, motion in enumerate(CLASSES):
            name = f'{motion}_{number:04}.mp4'
            write_video(partial / name, make_clip(photograph, motion, args.size, args.frames, rng))
            lines.append(f'{name} {label}\n')
            progress.update()
    (partial / 'list.txt').write_text(''.join(lines))
    (partial / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
    partial.rename(args.out)
    print(f'\n{len(lines)} videos are in {args.out}, with list.txt and classes.txt')


if __name__ == '__main__':
    main()
