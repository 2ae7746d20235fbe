"""Write the 1 797 handwritten digits that scikit-learn brings as an image folder, with a fixed split.

python tools/dataset_converters/sklearn_digits.py OUT

OUT/train/0 ... OUT/train/9 and OUT/val/0 ... OUT/val/9 hold the images, a fifth of each class for validation.
OUT/meta/train_10_per_class_K.txt lists ten training images of each class with their labels, drawn anew for each K.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mmconvmae.utils import write_whole

PER_CLASS = 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--size', type=int, default=64, help='edge of an image, in pixels')
    parser.add_argument('--draws', type=int, default=3, help='lists of ten labelled images per class')
    return parser.parse_args()


def write_images(pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray, folder: Path, size: int) -> None:
    """Write some of the digits, scaled up bicubically.

    Args:
        pixels (np.ndarray): All digits, shape (N, 8, 8), from 0 to 16.
        labels (np.ndarray): Their classes, shape (N, ).
        indices (np.ndarray): Which to write.
        folder (Path): Where.
        size (int): Edge of an image, in pixels.
    """
    for i in indices:
        image = Image.fromarray((pixels[i] * 255 / 16).round().astype(np.uint8))
        path = folder / f'{labels[i]}' / f'{i:04d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize((size, size), Image.Resampling.BICUBIC).save(path)


def write_lists(labels: np.ndarray, train: np.ndarray, folder: Path, draws: int) -> None:
    """Write lists of a few labelled training images of each class.

    Args:
        labels (np.ndarray): Classes of all digits, shape (N, ).
        train (np.ndarray): Which are training images.
        folder (Path): Where; it is made.
        draws (int): Number of lists.
    """
    folder.mkdir()
    for k in range(draws):
        rng = np.random.default_rng(k)
        drawn = [rng.choice(train[labels[train] == label], PER_CLASS, replace=False) for label in range(10)]
        lines = [f'{labels[i]}/{i:04d}.png {labels[i]}\n' for i in np.concatenate(drawn)]
        (folder / f'train_{PER_CLASS}_per_class_{k}.txt').write_text(''.join(lines))


def main() -> None:
    args = parse_args()
    digits = load_digits()
    indices = np.arange(len(digits.target))
    train, val = train_test_split(indices, test_size=0.2, stratify=digits.target, random_state=0)
    try:
        with write_whole(args.out, folder=True) as out:
            write_images(digits.images, digits.target, train, out / 'train', args.size)
            write_images(digits.images, digits.target, val, out / 'val', args.size)
            write_lists(digits.target, train, out / 'meta', args.draws)
    except OSError as error:
        sys.exit(f'Error: {error}')
    print(f'{len(train)} training and {len(val)} validation images are in {args.out}.')


if __name__ == '__main__':
    main()
