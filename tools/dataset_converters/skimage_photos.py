"""Cut random crops out of the photographs that scikit-image brings, as an image folder to try things on.

python tools/dataset_converters/skimage_photos.py OUT

OUT/train holds crops of the left 70 % of each photograph and OUT/val crops of the right 30 %, so that no pixel of a
validation crop is in a training crop.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from mmconvmae.utils import write_whole

PHOTOS = (
    'astronaut.png',
    'chelsea.png',
    'coffee.png',
    'ihc.png',
    'motorcycle_left.png',
    'rocket.jpg',
)
TRAIN_SHARE = 0.7


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--train', type=int, default=2048, help='number of training crops')
    parser.add_argument('--val', type=int, default=72, help='number of validation crops')
    parser.add_argument('--size', type=int, default=160, help='largest edge of a crop, in pixels')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def write_crops(photos: list[Image.Image], folder: Path, count: int, size: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    for i in range(count):
        photo = photos[i % len(photos)]
        edge = min(size, *photo.size)
        left, top = (int(rng.integers(length - edge + 1)) for length in photo.size)
        photo.crop((left, top, left + edge, top + edge)).save(folder / f'{i:05d}.png')


def main() -> None:
    args = parse_args()
    data = Path(skimage.__file__).parent / 'data'
    photos = [Image.open(data / name).convert('RGB') for name in PHOTOS]
    left_parts = [photo.crop((0, 0, int(photo.width * TRAIN_SHARE), photo.height)) for photo in photos]
    right_parts = [photo.crop((int(photo.width * TRAIN_SHARE), 0, photo.width, photo.height)) for photo in photos]
    rng = np.random.default_rng(args.seed)
    try:
        with write_whole(args.out, folder=True) as out:
            write_crops(left_parts, out / 'train', args.train, args.size, rng)
            write_crops(right_parts, out / 'val', args.val, args.size, rng)
    except OSError as error:
        sys.exit(f'Error: {error}')
    print(f'{args.train} training and {args.val} validation crops of {len(photos)} photographs are in {args.out}.')


if __name__ == '__main__':
    main()
