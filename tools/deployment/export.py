"""Export a model, or a part of it, as a graph for ONNX Runtime or for torch.export.load, and try it.

python tools/deployment/export.py CONFIG CHECKPOINT OUT [--format onnx|torch-export] [--size H W | --dynamic]
    [--int8 [--calibration FOLDER]] [--part backbone|neck|whole] [--evaluate]

Of a classifier or segmentor the whole is exported, of a detector the backbone and neck, else the backbone. The graph
takes images as bytes, uint8 of shape (batch, 3, height, width), red first, and normalises them as the config says; the
batch is free. Where a config says nothing of that, images are float32 and normalised already.

The file is opened again, run on random images of other batches (and with --dynamic of other sizes) and compared with
the model. If the largest difference, as a share of the largest value of an output, is more than --tolerance, no file
stays and the exit status is 1. docs/deployment.md has more.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmengine.utils import ProgressBar
from torch import Tensor

from mmconvmae.apis import load_center_crop
from mmconvmae.apis.export import (
    PARTS,
    SMALLEST_GRID,
    ExportedPart,
    capture,
    compare,
    load_part,
    need,
    open_onnx,
    open_torch,
    write_int8,
    write_onnx,
    write_torch,
)
from mmconvmae.datasets import LoadWholeImage, find_images
from mmconvmae.utils import first_line, write_whole

# So many images of a folder fix the ranges of activations.
CALIBRATION_IMAGES = 100


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the model')
    parser.add_argument('checkpoint', help="its checkpoint, ours or the authors'")
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument('--format', choices=('onnx', 'torch-export'), default='onnx')
    parser.add_argument('--part', choices=PARTS, help="what to export (default: by the model's kind)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--size', nargs=2, type=int, metavar=('H', 'W'), help="pixels (default: the backbone's usual)")
    sizes.add_argument('--dynamic', action='store_true', help='height and width are free, but for the total stride')
    parser.add_argument('--int8', action='store_true', help='matrix products with weights in 8 bits; ONNX alone')
    parser.add_argument(
        '--calibration', metavar='FOLDER', help='images that fix the ranges of int8 (default: ranges of the moment)'
    )
    parser.add_argument('--tolerance', type=float, help='see above (default: 1e-4, with --int8 0.2)')
    parser.add_argument(
        '--evaluate', action='store_true', help="accuracy of a classifier's graph on the config's test images"
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config to replace'
    )
    return parser.parse_args()


def read_config(path: str, options: dict | None) -> Config:
    """Read a config.

    Args:
        path (str): The file.
        options (dict, optional): Settings to replace.

    Returns:
        Config: The config.

    Raises:
        OSError: If there is no such file.
        ValueError: If it cannot be read otherwise.
    """
    try:
        config = Config.fromfile(path)
    except OSError:
        raise
    except Exception as error:  # whatever the code in it raises
        raise ValueError(f'{path} cannot be read as a config ({first_line(error)}).') from error
    config.merge_from_dict(options or {})
    return config


def calibration_images(folder: str, part: ExportedPart, size: tuple[int, int]) -> list[Tensor]:
    """Load images for calibration, cut as for classification and spread over a folder.

    Args:
        folder (str): The folder.
        part (ExportedPart): What they are for.
        size (tuple[int, int]): Height and width.

    Returns:
        list[Tensor]: Images of shape (1, C, H, W), uint8.

    Raises:
        OSError: If an image cannot be used.
        ValueError: If there are none, or the part takes no bytes.
    """
    if part.dtype != torch.uint8:
        raise ValueError('The config does not say how images are normalised, so none of a folder can be given.')
    names, _ = find_images(folder)
    if not names:
        raise ValueError(f'{folder} holds no images to calibrate with.')
    names = names[:: -(-len(names) // CALIBRATION_IMAGES)]
    loader = LoadWholeImage(in_channels=part.in_channels)
    images = []
    for name in names:
        image = load_center_crop(str(Path(folder, name)), loader, size, max(size) * 8 // 7)
        if image.dtype != torch.uint8:
            raise ValueError(f'{Path(folder, name)} has more than 8 bits, and the graph takes images of 8.')
        images.append((image.flip(0) if part.in_channels == 3 else image)[None])
    return images


@torch.no_grad()
def accuracies(config: Config, part: ExportedPart, run: Callable[[Tensor], list[Tensor]]) -> tuple[int, int, int]:
    """Count the test images that a classifier and its graph classify rightly.

    Args:
        config (Config): A classification config.
        part (ExportedPart): The classifier.
        run (Callable): Runs its graph.

    Returns:
        tuple[int, int, int]: Those of the classifier, those of its graph, and all.

    Raises:
        OSError: If an image cannot be used.
        ValueError: If they are no bytes.
    """
    loader = Runner.build_dataloader(config.test_dataloader)
    right = torch.zeros(2, dtype=torch.int64)
    progress = ProgressBar(len(loader.dataset))
    for batch in loader:
        images = batch['inputs'] if isinstance(batch['inputs'], Tensor) else torch.stack(batch['inputs'])
        if images.dtype != torch.uint8:
            raise ValueError(f'The test images are {images.dtype}, and the graph takes bytes.')
        images = images.flip(1) if images.shape[1] == 3 else images
        labels = torch.stack([sample.gt_label.flatten()[0] for sample in batch['data_samples']])
        right += torch.stack([(out[0].argmax(1) == labels).sum() for out in (part(images), run(images))])
        progress.update(len(images))
    print()
    return *right.tolist(), len(loader.dataset)


def export(args: argparse.Namespace) -> Iterator[str]:
    """Do what the command line says.

    Args:
        args (argparse.Namespace): Command line.

    Yields:
        str: What to tell of it.

    Raises:
        OSError: If a file is missing or cannot be read or written.
        ValueError: If the model cannot be exported, or the graph differs from it.
    """
    if args.format != 'onnx' and (args.int8 or args.calibration):
        raise ValueError("--int8 is by ONNX Runtime's quantiser; it goes with --format onnx.")
    if args.calibration and not args.int8:
        raise ValueError('--calibration is for --int8; give both or none.')
    tolerance = args.tolerance if args.tolerance is not None else 0.2 if args.int8 else 1e-4
    if args.format == 'onnx':
        need('onnx', 'onnxruntime', 'onnxscript')
    config = read_config(args.config, args.cfg_options)
    part = load_part(config, args.checkpoint, args.part, args.config)
    if args.evaluate and (part.part != 'whole' or part.resizes or 'test_dataloader' not in config):
        raise ValueError('--evaluate is for the whole of a classifier whose config has a `test_dataloader`.')
    size = tuple(args.size or part.img_size)
    calibration = calibration_images(args.calibration, part, size) if args.calibration else []
    if calibration:
        yield f'Ranges of activations are those of {len(calibration)} images.'
    program = capture(part, size, args.dynamic)
    images = 'uint8, red first' if part.dtype == torch.uint8 else 'float32, normalised'
    smallest = SMALLEST_GRID * part.stride
    of = f'any size from {smallest} on that {part.stride} divides' if args.dynamic else f'{size[0]} x {size[1]}'
    yield f'{type(part.model).__name__}, {part.part}: any number of images of {of}, {images}'
    with write_whole(args.out) as path:
        if args.format == 'torch-export':
            write_torch(program, path)
        elif args.int8:
            with TemporaryDirectory() as folder:
                source = Path(folder, 'float32.onnx')
                write_onnx(program, source)
                write_int8(source, path, calibration)
        else:
            write_onnx(program, path)
        run = open_torch(path) if args.format == 'torch-export' else open_onnx(path)
        tried = [size] * 3
        if args.dynamic:
            height, width = (max(edge, smallest) for edge in size)
            tried = [(height, width), (height + part.stride, width + 2 * part.stride), (smallest, width)]
        for seed, (batch, (height, width)) in enumerate(zip((1, 3, 5), tried), 1):
            difference, share = compare(part, run, part.random_images(batch, (height, width), seed))
            yield (
                f'{batch} x {part.in_channels} x {height} x {width}: largest difference {difference:.2g}, '
                f'{share:.2g} of the largest value'
            )
            if not share <= tolerance:
                advice = '; give --size H W in place of --dynamic' if args.dynamic else ''
                raise ValueError(f'The graph differs from the model by {share:.2g}, more than {tolerance:g}{advice}.')
        if args.evaluate:
            of_model, of_graph, count = accuracies(config, part, run)
            yield (
                f'Of {count} test images the model classifies {of_model} rightly ({of_model / count:.2%}), '
                f'the graph {of_graph} ({of_graph / count:.2%}).'
            )
        mebibytes = path.stat().st_size / 2**20
    yield f'{args.out}: {mebibytes:.2f} MiB'


def main() -> None:
    args = parse_args()
    try:
        for line in export(args):
            print(line, flush=True)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: nothing was exported: {error}')


if __name__ == '__main__':
    main()
