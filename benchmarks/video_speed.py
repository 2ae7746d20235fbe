"""Time a pretraining step of VideoConvMAE, with visible tubes alone and dense, beside VideoMAE's ViT of the same width.

python benchmarks/video_speed.py [--arch small --size 112 --batch-size 4 --threads 2 ...]

A step is forward and backward of a batch of random clips of which 90 % of the tubes are removed. In each round every
contender has a process of its own, one after the other, so that whatever slows the machine slows them all, and that the
peak of memory is its own: that of the process, libraries included, or of its tensors on a GPU. The time of a round is
the median of its steps, after one that is not counted; ratios are taken round by round, and figures are medians over
rounds. Multiply-adds are those of matrix products, convolutions and attention in a forward pass of one clip.

The decoders are alike: half as wide as the encoder, 4 blocks. VideoConvMAE's takes all three scales.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn as nn
from measuring import figures_table, peak_memory_gib, take_step, timed
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

from mmconvmae.models import ConvViT
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds, write_whole

# Sizes of VideoConvMAE, and mmpretrain's ViT of 12 blocks as wide as its stage 3
ARCHS = {'tiny': 'deit-tiny', 'small': 'deit-small', 'base': 'base'}
CONTENDERS = {
    'visible': 'VideoConvMAE, visible tubes only',
    'dense': 'VideoConvMAE, dense',
    'videomae': 'VideoMAE, ViT of the same width',
}
# Heading, key of a contender's figures, and how the value is printed
COLUMNS = (
    ('s / step', 'seconds_per_step', '{:.3f}'.format),
    ('clips / s', 'clips_per_second', '{:.2f}'.format),
    ('time / {reference}', 'time_ratio', '{:.2f}'.format),
    ('memory, GiB', 'peak_memory_gib', '{:.2f}'.format),
    ('of which steps add', 'step_memory_gib', '{:.2f}'.format),
    ('memory / {reference}', 'memory_ratio', '{:.2f}'.format),
    ('multiply-adds, G', 'multiply_adds', lambda count: f'{count / 1e9:.2f}'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument('--reference', choices=CONTENDERS, default='videomae', help='what ratios are to')
    parser.add_argument('--arch', choices=ARCHS, default='small')
    parser.add_argument('--frames', type=int, default=16, help='of a clip, even')
    parser.add_argument('--size', type=int, default=112, help='edge of the frames, in pixels, a multiple of 16')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32', help='of autocast')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--threads', type=int, default=2, help='of a CPU')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=3, help='timed steps of each in a round, after one that is not')
    parser.add_argument('--json', type=Path, help='file for the figures')
    parser.add_argument('--alone', choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.frames, args.size, args.batch_size, args.threads, args.rounds, args.steps) < 1:
        parser.error('--frames, --size, --batch-size, --threads, --rounds and --steps are at least 1')
    if args.reference not in args.contenders:
        parser.error(f'--reference {args.reference} is not one of the --contenders')
    return args


def build(name: str, args: argparse.Namespace) -> nn.Module:
    """Build a contender.

    Args:
        name (str): One of ``CONTENDERS``.
        args (argparse.Namespace): Command line.

    Returns:
        nn.Module: The model, in training mode, with random weights.

    Raises:
        ValueError: If there is none for clips of this size.
    """
    size = dict(img_size=args.size, num_frames=args.frames)
    if name == 'videomae':
        backbone = dict(type='mmconvmae.VideoMAEViT', arch=ARCHS[args.arch], **size)
    else:
        conv_mode = 'visible' if name == 'visible' else 'masked'
        backbone = dict(type='mmconvmae.VideoConvMAEViT', arch=args.arch, conv_mode=conv_mode, **size)
    arch = ConvViT.arch_zoo[args.arch]
    decoder = dict(embed_dims=arch['embed_dims'][2] // 2, depth=4, num_heads=arch['num_heads'] // 2)
    model = dict(
        type='mmconvmae.ConvMAE',
        backbone=backbone,
        neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', **decoder),
        head=dict(type='mmconvmae.ConvMAEPretrainHead', norm_pix='channel'),
        mask_generator=dict(type='mmconvmae.ConvMAEMaskGenerator', mask_ratio=0.9, round_up=True),
    )
    return MODELS.build(model).train()


def measure_alone(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Measure a contender in this process, which does nothing else.

    Args:
        name (str): One of ``CONTENDERS``.
        args (argparse.Namespace): Command line.

    Returns:
        dict[str, float]: Seconds of a step, and GiB: the peak, and what of it steps add to weights and libraries.
    """
    torch.manual_seed(0)
    model = build(name, args).to(args.device)
    clips = torch.randn(args.batch_size, 3, args.frames, args.size, args.size, device=args.device)
    before = peak_memory_gib(args.device)
    _, *seconds = (timed(lambda: take_step(model, clips, args.dtype), args.device) for _ in range(args.steps + 1))
    peak = peak_memory_gib(args.device)
    return dict(seconds_per_step=statistics.median(seconds), peak_memory_gib=peak, step_memory_gib=peak - before)


def run(args: argparse.Namespace) -> list[dict]:
    """Measure every contender in turn, round by round.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        list[dict]: Figures of each, in the order of the command line.

    Raises:
        RuntimeError: If a contender's process fails.
        ValueError: If there is none for clips of this size.
    """
    clip = torch.empty(1, 3, args.frames, args.size, args.size, device='meta')
    multiply_adds = {}
    for name in args.contenders:
        with torch.device('meta'):
            multiply_adds[name] = count_multiply_adds(build(name, args).loss, clip, None)
    rounds = {name: [] for name in args.contenders}
    progress = ProgressBar(args.rounds * len(rounds), file=sys.stderr)
    for _ in range(args.rounds):
        for name, figures in rounds.items():
            process = subprocess.run(
                [sys.executable, *sys.argv, '--alone', name], stdout=subprocess.PIPE, text=True, check=False
            )
            if process.returncode:
                raise RuntimeError(
                    f'the process of {name} ended with {process.returncode}, as it says above, or for want of memory; '
                    'a smaller --batch-size needs less'
                )
            figures.append(json.loads(process.stdout.splitlines()[-1]))
            progress.update()
    print(file=sys.stderr)  # ends the line of the progress bar
    results = []
    for name, figures in rounds.items():
        medians = {key: statistics.median(figure[key] for figure in figures) for key in figures[0]}
        ratios = {
            key: statistics.median(own[of] / other[of] for own, other in zip(figures, rounds[args.reference]))
            for key, of in dict(time_ratio='seconds_per_step', memory_ratio='peak_memory_gib').items()
        }
        results.append(
            dict(
                name=CONTENDERS[name],
                **medians,
                **ratios,
                clips_per_second=args.batch_size / medians['seconds_per_step'],
                multiply_adds=multiply_adds[name],
                rounds=figures,
            )
        )
    return results


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.set_num_threads(args.threads)
    if args.alone:
        print(json.dumps(measure_alone(args.alone, args)))
        return
    try:
        results = run(args)
    except (RuntimeError, ValueError) as error:
        sys.exit(f'Error: {error}')
    device = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU (threads: {args.threads})'
    print(
        f'{args.arch}, batch of {args.batch_size} clips of {args.frames} x {args.size} x {args.size}, {args.dtype}, '
        f'{device}, PyTorch {torch.__version__}, rounds: {args.rounds}\n'
    )
    print(figures_table(COLUMNS, results, args.reference))
    if args.json:
        with write_whole(args.json) as path:
            path.write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
