"""Time classifiers in PyTorch, compiled, and in ONNX Runtime in float32 and int8, in turn within one process.

python benchmarks/latency.py [--models NAME ...] [--paths eager compile onnx int8] [--batch-size 8] [--out FOLDER]

A model is convvit-ARCH, or the name of one of timm's; all have random weights and 1000 classes, and take random images
of one size, normalised float32. Each round runs every model along every path once, so that whatever slows the machine
slows them all, after a first round that is not timed. Rates are medians over rounds, with the slowest and the fastest;
ratios to the first model along the same path are taken round by round. int8 is ONNX Runtime's dynamic quantisation of
matrix products with weights, as tools/deployment/export.py has it. On a GPU only eager and compile are measured.

Before anything is timed, each path's logits are compared with eager's.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn as nn
from measuring import figures_table, timed
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from torch import Tensor

from mmconvmae.apis.export import open_onnx, write_int8, write_onnx
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds, count_parameters, first_line, write_whole

DEFAULT = ('vit_base_patch16_224', 'convvit-small', 'convvit-base', 'convnext_base', 'swin_base_patch4_window7_224')
PATHS = ('eager', 'compile', 'onnx', 'int8')
# How far logits may be from eager's, as a share of the largest. int8 is said and not judged: the weights are random.
TOLERANCE = 1e-3
# Between two runs: threads of ONNX Runtime go on waiting for work a little while.
PAUSE = 0.05  # seconds
# Heading, key of a model's figures, and how the value is printed
COLUMNS = (
    ('parameters, M', 'parameters', lambda count: f'{count / 1e6:.1f}'),
    ('multiply-adds, G', 'multiply_adds', lambda count: f'{count / 1e9:.2f}'),
    *(
        column
        for path in PATHS
        for column in (
            (f'{path}, images / s', f'{path}_rate', '{:.2f}'.format),
            ('slowest to fastest', f'{path}_range', lambda rates: '{:.2f} to {:.2f}'.format(*rates)),
            ('rate / {reference}', f'{path}_ratio', '{:.2f}'.format),
        )
    ),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=list(DEFAULT), help='the first is what ratios refer to')
    parser.add_argument('--paths', nargs='+', choices=PATHS, default=list(PATHS))
    parser.add_argument('--size', type=int, default=224, help='edge of the images, in pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=7, help='timed rounds, after one that is not')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of a CPU')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='for latency.json and latency.md')
    args = parser.parse_args()
    if min(args.size, args.batch_size, args.rounds, args.threads) < 1:
        parser.error('--size, --batch-size, --rounds and --threads are at least 1')
    if len(set(args.models)) < len(args.models):
        parser.error('a model is named twice')
    if args.device == 'cuda':
        args.paths = [path for path in args.paths if path in ('eager', 'compile')]
    args.paths = [path for path in PATHS if path in args.paths]
    if not args.paths:
        parser.error('ONNX Runtime is measured on a CPU alone: --device cpu')
    return args


def build(name: str, size: int) -> nn.Module:
    """Build a classifier of 1000 classes with random weights.

    Args:
        name (str): 'convvit-' and an architecture, or a name of timm's.
        size (int): Edge of the images, in pixels.

    Returns:
        nn.Module: The classifier, in evaluation mode, without gradients.

    Raises:
        ValueError: If there is no such model.
    """
    torch.manual_seed(0)
    kind, _, arch = name.partition('convvit-')
    try:
        if arch and not kind:
            backbone = MODELS.build(dict(type='mmconvmae.ConvViT', arch=arch, img_size=size))
            head = dict(type='LinearClsHead', num_classes=1000, in_channels=backbone.embed_dims[-1])
            model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))
        else:
            import timm

            model = timm.create_model(name, num_classes=1000)
    except (ImportError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f'{name} cannot be built: {first_line(error)}') from error
    return model.eval().requires_grad_(False)


def prepare(model: nn.Module, images: Tensor, folder: Path, args: argparse.Namespace, progress: ProgressBar) -> dict:
    """Make what runs a model along each path, and compare their logits.

    Args:
        model (nn.Module): The classifier.
        images (Tensor): Shape (B, 3, size, size).
        folder (Path): An empty one for files of this model.
        args (argparse.Namespace): Command line.
        progress (ProgressBar): Told of every path.

    Returns:
        dict: Under each path, what runs it, and the largest difference from eager's logits, as a share of the largest.

    Raises:
        ValueError: If a path cannot run the model, or its logits are others.
    """
    runs = {}
    expected = model(images)
    for path in args.paths:
        if path == 'eager':
            call = model
        elif path == 'compile':
            call = torch.compile(model)
        else:
            file = folder / 'float32.onnx'
            if not file.exists():
                write_onnx(torch.export.export(model, (images,), strict=False), file)
            if path == 'int8':
                write_int8(file, folder / 'int8.onnx')
                file = folder / 'int8.onnx'
            call = open_onnx(file, args.threads)
        out = call(images)
        logits = out[0] if isinstance(out, list) else out  # ONNX Runtime gives a list
        share = ((logits - expected).abs().max() / expected.abs().max()).item()
        if path != 'int8' and not share <= TOLERANCE:
            raise ValueError(f"its logits by {path} differ from eager's by {share:.2g} of the largest")
        runs[path] = partial(call, images), share
        progress.update()
    return runs


@torch.no_grad()
def measure(args: argparse.Namespace) -> list[dict]:
    """Measure every model along every path.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        list[dict]: A row of figures for each model.

    Raises:
        ValueError: If one cannot be measured.
    """
    torch.manual_seed(0)
    images = torch.randn(args.batch_size, 3, args.size, args.size, device=args.device)
    rows, runs = [], {}
    progress = ProgressBar(len(args.models) * len(args.paths) * (args.rounds + 2), file=sys.stderr)
    with TemporaryDirectory() as folder:
        for name in args.models:
            model = build(name, args.size).to(args.device)
            own = Path(folder, name)
            own.mkdir()
            try:
                of_model = prepare(model, images, own, args, progress)
                multiply_adds = count_multiply_adds(model, images[:1])
            except Exception as error:  # of models and compilers that are not ours
                raise ValueError(f'{name} cannot be measured: {first_line(error)}') from error
            runs.update(((name, path), run) for path, (run, _) in of_model.items())
            differences = {f'{path}_difference': share for path, (_, share) in of_model.items()}
            rows.append(dict(name=name, parameters=count_parameters(model), multiply_adds=multiply_adds, **differences))
        seconds = {key: [] for key in runs}
        for _ in range(args.rounds + 1):
            for key, run in runs.items():
                time.sleep(PAUSE)
                seconds[key].append(timed(run, args.device))
                progress.update()
    print(file=sys.stderr)  # ends the line of the progress bar
    for path in args.paths:
        of_first = seconds[args.models[0], path][1:]
        for row in rows:
            own = seconds[row['name'], path][1:]
            rates = [args.batch_size / x for x in own]
            row[f'{path}_rate'] = statistics.median(rates)
            row[f'{path}_range'] = [min(rates), max(rates)]
            row[f'{path}_ratio'] = statistics.median(first / x for x, first in zip(own, of_first))
            row[f'{path}_all_seconds'] = own
    return rows


def versions() -> str:
    """The versions of what runs the models."""
    texts = [f'PyTorch {torch.__version__}']
    for module, name in (('onnxruntime', 'ONNX Runtime'), ('timm', 'timm')):
        try:
            texts.append(f'{name} {__import__(module).__version__}')
        except ImportError:
            continue
    return ', '.join(texts)


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    init_default_scope('mmpretrain')
    device = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU (threads: {args.threads})'
    summary = (
        f'{args.size} x {args.size} pixels, batch size {args.batch_size}, {device}, {versions()}, rounds: {args.rounds}'
    )
    try:
        rows = measure(args)
        table = figures_table(COLUMNS, rows, reference=args.models[0])
        print(f'{summary}\n\n{table}')
        if args.out:
            report = dict(vars(args), out=str(args.out), conditions=summary, rows=rows)
            for suffix, text in dict(json=json.dumps(report, indent=1), md=f'{summary}\n\n{table}\n').items():
                with write_whole(args.out / f'latency.{suffix}') as path:
                    path.write_text(text)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {error}')


if __name__ == '__main__':
    main()
