"""Measure how fast training images are loaded on one core, and how far reduced decoding is from the full one.

python benchmarks/loading_speed.py [--images FOLDER] [--repeat N]

Two sizes are made out of photographs: 12 megapixels, as of cameras, and 500 x 375, as in ImageNet. Each way
of loading sees the same crops; they take turns, and the best of the rounds counts. The ways are LoadRandomResizedCrop,
loading with Pillow before mmpretrain's RandomResizedCrop, and mmpretrain's default, with OpenCV and no antialiasing.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, init_default_scope
from mmengine.utils import track_iter_progress
from PIL import Image
from skimage import data

from mmconvmae.utils import markdown_table

CROP = dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0))
WAYS = {
    'here': [dict(type='mmconvmae.LoadRandomResizedCrop', scale=224, crop_ratio_range=(0.2, 1.0))],
    'whole image, Pillow': [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(CROP, backend='pillow', interpolation='bicubic'),
    ],
    'whole image, OpenCV': [dict(type='LoadImageFromFile'), dict(CROP, backend='cv2', interpolation='bicubic')],
}
SIZES = {'12 megapixels': (4000, 3000), '500 x 375': (500, 375)}
END = [dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=Path, help="folder of photographs (default: those of scikit-image's)")
    parser.add_argument('--repeat', type=int, default=5, help='rounds')
    return parser.parse_args()


def make_photographs(images: Path | None, folder: Path) -> dict[str, list[str]]:
    """Resize photographs and save them as cameras do, with JPEG's quality 92.

    Args:
        images (Path | None): Folder of photographs, None for scikit-image's.
        folder (Path): Where to write.

    Returns:
        dict[str, list[str]]: Paths of each size.
    """
    if images is None:
        sources = [
            Image.fromarray(picture) for picture in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
        ]
    else:
        sources = [Image.open(path).convert('RGB') for path in sorted(images.iterdir())[:4]]
    paths = {}
    for name, size in SIZES.items():
        paths[name] = []
        for index, source in enumerate(sources):
            path = folder / f'{size[0]}_{index}.jpg'
            source.resize(size, Image.Resampling.LANCZOS).save(path, quality=92)
            paths[name].append(str(path))
    return paths


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pipelines = {way: Compose([TRANSFORMS.build(step) for step in [*steps, *END]]) for way, steps in WAYS.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photographs(args.images, Path(folder))
        best = {(name, way): float('inf') for name in SIZES for way in WAYS}
        for seed in track_iter_progress(range(args.repeat)):
            for name, way in best:
                files = paths[name] * (1 if name == '12 megapixels' else 25)
                np.random.seed(seed)
                start = time.perf_counter()
                for path in files:
                    pipelines[way](dict(img_path=path))
                best[name, way] = min(best[name, way], (time.perf_counter() - start) / len(files))
        differences = {}
        for name in SIZES:
            pairs = []
            for seed in range(10):
                for path in paths[name]:
                    pair = []
                    for way in ('here', 'whole image, Pillow'):
                        np.random.seed(seed)
                        pair.append(pipelines[way](dict(img_path=path))['inputs'].float())
                    pairs.append((pair[0] - pair[1]).abs())
            differences[name] = torch.stack(pairs)
    print()
    rows = [[name, *(f'{1 / best[name, way]:.0f}' for way in WAYS)] for name in SIZES]
    print(markdown_table(['images a second', *WAYS], rows))
    for name, difference in differences.items():
        print(f'{name}: mean difference from Pillow {difference.mean():.2f} of 255, largest {difference.max():.0f}.')


if __name__ == '__main__':
    main()
