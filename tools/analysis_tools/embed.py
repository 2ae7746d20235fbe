"""Write the features of every image or video in a folder, and below it, with the backbone of any checkpoint.

python tools/analysis_tools/embed.py FOLDER --checkpoint CHECKPOINT --out features.npz features.csv

An image is resized by its shorter edge and its middle cut out, as for classification; its features are the mean of the
last stage over the image and then LayerNorm. A .npz file has them under `features`, float32 of shape (N, C), and under
`paths` the files, relative to the folder; a .csv file has a row for each image, and the columns path, f0, f1 and so on.

With the checkpoint of a model of clips, the folder is one of videos. Of each the clip in the middle is taken, or
several with --views, whose features are averaged.
"""

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmconvmae.apis import (
    LoadedBackbone,
    add_backbone_arguments,
    load_by_arguments,
    load_center_clips,
    load_center_crop,
)
from mmconvmae.datasets import LoadClip, find_images, find_videos
from mmconvmae.datasets.image_file import MediaFileError
from mmconvmae.utils import write_whole


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of images or videos, with sub-folders or without')
    add_backbone_arguments(parser)
    parser.add_argument('--out', required=True, nargs='+', type=Path, help='files to write, .npz or .csv')
    parser.add_argument('--img-size', nargs='+', type=int, help="edge, or height and width (default: the model's)")
    parser.add_argument(
        '--short-edge',
        type=int,
        help='pixels before the crop (default: 256 / 224 of the longer edge; of videos the longer edge itself)',
    )
    parser.add_argument('--views', type=int, default=1, help='clips of each video, whose features are averaged')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=min(8, os.cpu_count()), help='processes that load images')
    parser.add_argument('--skip-damaged', action='store_true', help='leave out files that cannot be used, and go on')
    return parser.parse_args()


class Folder(Dataset):
    """Images or videos of a folder, prepared for a backbone.

    An item is an image of shape (1, C, H, W), or clips of a video, (views, C, T, H, W), or the error of a file that
    cannot be used: raised in a worker process, it would arrive with that process's traceback in it.

    Args:
        root (str): The folder.
        names (list[str]): Files in it.
        model (LoadedBackbone): Tells how to load one.
        size (tuple[int, int]): Height and width of the crop.
        short_edge (int): What the shorter edge becomes first.
    """

    def __init__(
        self, root: str, names: list[str], model: LoadedBackbone, size: tuple[int, int], short_edge: int
    ) -> None:
        self.root, self.names, self.loader = root, names, model.loader
        self.size, self.short_edge = size, short_edge

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor | MediaFileError:
        path = os.path.join(self.root, self.names[index])
        try:
            if isinstance(self.loader, LoadClip):
                return load_center_clips(path, self.loader, self.size, self.short_edge)
            return load_center_crop(path, self.loader, self.size, self.short_edge)[None]
        except MediaFileError as error:
            return error


def choose_size(args: argparse.Namespace, model: LoadedBackbone) -> tuple[tuple[int, int], int]:
    """Find the size of the crop, and the shorter edge before it.

    Args:
        args (argparse.Namespace): Command line.
        model (LoadedBackbone): The backbone.

    Returns:
        tuple[tuple[int, int], int]: Height and width, and the shorter edge.

    Raises:
        ValueError: If the backbone does not take such images, or the crop would be larger than the image.
    """
    size = args.img_size or model.backbone.img_size
    size = tuple(size) if len(size) == 2 else (size[0],) * 2 if len(size) == 1 else None
    stride = model.backbone.stride
    if size is None or any(edge <= 0 or edge % stride for edge in size):
        raise ValueError(f'--img-size is {args.img_size}; give one or two multiples of {stride}.')
    of_clips = model.backbone.num_frames is not None
    short_edge = args.short_edge or (max(size) if of_clips else max(size) * 256 // 224)
    if short_edge < max(size):
        raise ValueError(f'--short-edge is {short_edge}, and the crop {size[0]} x {size[1]}; give no less than that.')
    return size, short_edge


def extract_features(
    model: LoadedBackbone, folder: Folder, args: argparse.Namespace
) -> tuple[np.ndarray, list[str], list[str]]:
    """Compute the features of all images of a folder.

    Args:
        model (LoadedBackbone): The backbone.
        folder (Folder): The images.
        args (argparse.Namespace): Command line.

    Returns:
        tuple[np.ndarray, list[str], list[str]]: Features of shape (N, C), float32; the images that they are of; and
        what is wrong with those that were left out.

    Raises:
        OSError: If an image cannot be used and none is to be left out, or if none at all can.
        ValueError: If a batch does not fit the memory of the device, images of different depths are mixed, or features
            are not finite.
    """
    loader = DataLoader(
        folder,
        batch_size=args.batch_size,
        # Of fewer batches than processes, some would have nothing to do.
        num_workers=min(args.workers, -(-len(folder) // args.batch_size)),
        collate_fn=list,
    )
    features = np.empty((len(folder), model.backbone.embed_dims[-1]), np.float32)
    names, faults = [], []
    progress = ProgressBar(len(folder))
    done = 0
    for batch in loader:
        images = []
        for name, item in zip(folder.names[done : done + len(batch)], batch):
            if isinstance(item, Tensor):
                images.append(item)
                names.append(name)
            elif args.skip_damaged:
                faults.append(str(item))
            else:
                raise OSError(f'{item} Or leave such files out: --skip-damaged.')
        if images:
            depths = {image.dtype: name for name, image in zip(names[-len(images) :], images)}
            if len(depths) > 1:
                raise ValueError(
                    f'The images {" and ".join(depths.values())} have different depths (one has 8 bits, the other '
                    'more), which one mean cannot fit; give --full-scale 255 if the mean is in units of 8 bits, or '
                    'take those of one depth out.'
                )
            try:
                (output,) = model(torch.cat(images))
            except torch.OutOfMemoryError as error:
                raise ValueError(f'{args.batch_size} of them do not fit the memory; lower --batch-size.') from error
            of_files = output.float().unflatten(0, (len(images), -1)).mean(1)  # over the views
            features[len(names) - len(images) : len(names)] = of_files.cpu().numpy()
        done += len(batch)
        progress.update(len(batch))
    print()
    if not names:
        raise OSError(f'None of the {len(folder)} files can be used. The first: {faults[0]}')
    features = features[: len(names)]
    if not np.isfinite(features).all():
        raise ValueError('The features are not finite; is the checkpoint one of a run that diverged?')
    return features, names, faults


def write_npz(path: Path, features: np.ndarray, names: list[str]) -> None:
    with path.open('wb') as file:
        np.savez(file, features=features, paths=np.array(names))


def write_csv(path: Path, features: np.ndarray, names: list[str]) -> None:
    # A name that is not UTF-8 keeps its bytes.
    with path.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file)
        writer.writerow(['path', *(f'f{i}' for i in range(features.shape[1]))])
        # numpy's float32 is written with as many digits as it takes to read the same back.
        writer.writerows([name, *map(str, row)] for name, row in zip(names, features))


FORMATS = {'.npz': write_npz, '.csv': write_csv}


def embed(args: argparse.Namespace) -> Iterator[str]:
    """Do what the command line says.

    Args:
        args (argparse.Namespace): Command line.

    Yields:
        str: What to tell of it.

    Raises:
        OSError: If a file is missing or cannot be read or written.
        ValueError: If the checkpoint or an argument is of no use.
    """
    if any(path.suffix not in FORMATS for path in args.out):
        raise ValueError(f'--out is {", ".join(map(str, args.out))}; give files that end in .npz or .csv.')
    if args.batch_size < 1 or args.views < 1 or args.workers < 0:
        raise ValueError('--batch-size and --views have to be at least 1, and --workers at least 0.')
    model = load_by_arguments(args, out_type='avg_featmap')
    of_clips = model.backbone.num_frames is not None
    if of_clips:
        model.loader.sampler.num_clips = args.views
    elif args.views > 1:
        raise ValueError(f'--views is {args.views}, and {args.checkpoint} has a model of images; leave it out.')
    kind, (names, not_taken) = (
        ('videos', find_videos(args.folder)) if of_clips else ('images', find_images(args.folder))
    )
    if not names:
        others = f' but {sum(not_taken.values())} other files' if not_taken else ''
        raise ValueError(f'{args.folder} holds no {kind}{others}.')
    size, short_edge = choose_size(args, model)
    yield model.origin
    yield f'{len(names)} {kind} in {args.folder}, as crops of {size[0]} x {size[1]}, on {args.device}'
    folder = Folder(args.folder, names, model, size, short_edge)
    features, names, faults = extract_features(model, folder, args)
    with ExitStack() as stack:  # all files or none
        for path in args.out:
            FORMATS[path.suffix](stack.enter_context(write_whole(path)), features, names)
    yield from faults
    left_out = f' Left out: {len(faults)}.' if faults else ''
    written = ' and '.join(map(str, args.out))
    yield f'{len(names)} x {features.shape[1]} features are in {written}.{left_out}'


def main() -> None:
    args = parse_args()
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files may hold anything
    try:
        for line in embed(args):
            print(line)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: no features were written: {error}')


if __name__ == '__main__':
    main()
