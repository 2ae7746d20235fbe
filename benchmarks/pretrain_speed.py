"""Time a pretraining step of ConvMAE beside its published form and its rivals, in turn within one process.

python benchmarks/pretrain_speed.py [--arch base --batch-size 16 --dtype float32 --device cpu ...]

A step is forward and backward, and with --optimizer AdamW too. Each round takes one step of every contender, so that
whatever slows the machine slows them all; ratios are taken round by round. Peak memory is that of a process of its own
for each, or of its tensors on a GPU. Multiply-adds are those of matrix products, convolutions and attention in a
forward pass; the last column is three times as many, for forward and backward, over what the machine does in large
matrix products of the same type.

An image with four complementary masks counts as four, so that every step is as large; how many images have to be
decoded for that is a column of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
from cross_mae import CrossMAE  # noqa: F401, registers it
from measuring import draw_bars, figures_table, peak_memory_gib, take_step, timed
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from published_form import PublishedConvMAE
from torch import Tensor

from mmconvmae.models import ConvViT
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds, markdown_table, write_whole

ROOT = Path(__file__).resolve().parents[1]
FAST = ROOT / 'configs' / 'convmae' / 'convmae_convvit-base-p16-fast_8xb256-amp-coslr-200e_in1k.py'
# Heading, key of a contender's figures, and how the value is printed
COLUMNS = (
    ('s / step', 'seconds_per_step', '{:.3f}'.format),
    ('images / s', 'images_per_second', '{:.2f}'.format),
    ('decoded images / s', 'decoded_per_second', '{:.2f}'.format),
    ('time / {reference}', 'ratio', '{:.2f}'.format),
    ('memory, GiB', 'peak_memory_gib', '{:.2f}'.format),
    ('of which a step adds', 'step_memory_gib', '{:.2f}'.format),
    ('multiply-adds, G', 'multiply_adds', lambda count: f'{count / 1e9:.2f}'),
    ('share of matrix rate', 'share_of_matrix_rate', '{:.0%}'.format),
)


class HieraMAE(nn.Module):
    """Hiera's MAE with the interface of the others."""

    def __init__(self, mask_ratio: float) -> None:
        super().__init__()
        from hiera.hiera_mae import mae_hiera_base_224

        self.model = mae_hiera_base_224()
        self.mask_ratio = mask_ratio

    def loss(self, images: Tensor, data_samples: None) -> dict[str, Tensor]:
        return dict(loss=self.model(images, mask_ratio=self.mask_ratio)[0])


def convmae(
    args: argparse.Namespace, conv_mode: str = 'visible', generator: str = 'ConvMAEMaskGenerator', **neck
) -> nn.Module:
    return MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            mask_generator=dict(type=f'mmconvmae.{generator}', mask_ratio=args.mask_ratio),
            backbone=dict(type='mmconvmae.ConvMAEViT', arch=args.arch, conv_mode=conv_mode),
            neck=dict(dict(type='mmconvmae.ConvMAEPretrainDecoder'), **neck),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )


def mae(args: argparse.Namespace, kind: str = 'mmpretrain.MAE', **neck) -> nn.Module:
    loss = dict(type='PixelReconstructionLoss', criterion='L2')
    return MODELS.build(
        dict(
            type=kind,
            backbone=dict(type='MAEViT', arch='b', patch_size=16, mask_ratio=args.mask_ratio),
            neck=dict(type='MAEPretrainDecoder', embed_dim=768, decoder_embed_dim=512, **neck),
            head=dict(type='MAEPretrainHead', norm_pix=True, loss=loss),
        )
    )


def spark(args: argparse.Namespace) -> nn.Module:
    # mmpretrain's config for small, with the width of base, which is as large as ConvViT-B
    return MODELS.build(
        dict(
            type='mmpretrain.SparK',
            input_size=224,
            downsample_raito=32,
            mask_ratio=args.mask_ratio,
            enc_dec_norm_cfg=dict(type='SparseLN2d', eps=1e-6),
            enc_dec_norm_dim=1024,
            backbone=dict(type='SparseConvNeXt', arch='base', out_indices=(0, 1, 2, 3), gap_before_output=False),
            neck=dict(type='SparKLightDecoder', feature_dim=512, upsample_ratio=32, mid_channels=0, last_act=False),
            head=dict(type='SparKPretrainHead', loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        )
    )


CONTENDERS: dict[str, tuple[str, Callable]] = {
    'visible': ('ConvMAE, visible blocks only', convmae),
    'fast': ('ConvMAE, the fast config', lambda args: convmae(args, **Config.fromfile(FAST).model.neck)),
    'half': ('ConvMAE, half of the removed patches predicted', lambda args: convmae(args, predict_ratio=0.5)),
    'quarter': ('ConvMAE, a quarter of them predicted', lambda args: convmae(args, predict_ratio=0.25)),
    'complementary': (
        'ConvMAE, complementary masks',
        lambda args: convmae(args, generator='ComplementaryMaskGenerator'),
    ),
    'dense': ('ConvMAE, dense', lambda args: convmae(args, 'masked')),
    'published': (
        'ConvMAE, published form',
        lambda args: PublishedConvMAE(ConvViT.arch_zoo[args.arch], args.mask_ratio),
    ),
    'mae': ('MAE ViT-B (mmpretrain)', mae),
    'cross-mae': (
        "MAE ViT-B with CrossMAE's decoder, a quarter of all patches predicted",
        lambda args: mae(args, 'mmconvmae.CrossMAE', decoder_depth=0),
    ),
    'spark': ('SparK ConvNeXt-B (mmpretrain)', spark),
    'hiera': ('Hiera-B MAE (hiera-transformer)', lambda args: HieraMAE(args.mask_ratio)),
    'hiera-recipe': ('Hiera-B MAE, at the mask ratio of its recipe, 0.6', lambda args: HieraMAE(0.6)),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=['visible', 'dense', 'published', 'mae'])
    parser.add_argument('--reference', choices=CONTENDERS, default='mae', help='what ratios are to')
    parser.add_argument('--arch', choices=ConvViT.arch_zoo, default='base', help='size of ConvMAE')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--mask-ratio', type=float, default=0.75)
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32', help='of autocast')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='number of CPU threads')
    parser.add_argument('--rounds', type=int, default=5, help='timed steps of each, after one that is not')
    parser.add_argument('--optimizer', action='store_true', help='take an AdamW step too')
    parser.add_argument(
        '--stage-ratios', nargs='+', type=float, help='time stages 1 and 2 alone at these mask ratios, and nothing else'
    )
    parser.add_argument('--no-memory', action='store_true', help='leave out peak memory')
    parser.add_argument('--json', type=Path, help='file for the figures')
    parser.add_argument('--chart', type=Path, help='file for a bar chart')
    parser.add_argument('--memory-of', choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


class Contender:
    """A model with random weights and images, ready to take training steps."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.args = args
        self.model = CONTENDERS[name][1](args).to(args.device).train()
        self.num_views = getattr(getattr(self.model, 'mask_generator', None), 'num_views', 1)
        if args.batch_size % self.num_views:
            sys.exit(f'Error: give a --batch-size that is a multiple of the {self.num_views} complementary masks.')
        self.images = torch.randn(args.batch_size // self.num_views, 3, 224, 224, device=args.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4) if args.optimizer else None

    def step(self) -> None:
        """Take one training step and wait for it."""
        take_step(self.model, self.images, self.args.dtype, self.optimizer)


def measure_memory(name: str, args: argparse.Namespace) -> tuple[Contender, dict[str, float]]:
    """Build a contender and measure the peak of memory in its first steps.

    Args:
        name (str): The contender.
        args (argparse.Namespace): Command line.

    Returns:
        tuple[Contender, dict[str, float]]: The contender, and GiB: the peak, without what was on a GPU before, and
        what of it steps add to weights and libraries.
    """
    others = 0.0
    if args.device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        others = peak_memory_gib(args.device)
    contender = Contender(name, args)
    before = peak_memory_gib(args.device)
    for _ in range(3):
        contender.step()
    peak = peak_memory_gib(args.device)
    return contender, dict(peak_memory_gib=peak - others, step_memory_gib=peak - before)


def matrix_rate(args: argparse.Namespace) -> float:
    """Multiply-adds a second of large matrix products, the best of several."""
    size = 8192 if args.device == 'cuda' else 2048
    a, b = (torch.randn(size, size, device=args.device, dtype=getattr(torch, args.dtype)) for _ in range(2))
    return size**3 / min(timed(lambda: torch.mm(a, b), args.device) for _ in range(8))


def time_in_turn(steps: dict[object, Callable], args: argparse.Namespace) -> dict[object, list[float]]:
    """Time steps in turn, after a round that is not counted.

    Args:
        steps (dict[object, Callable]): The steps by their names.
        args (argparse.Namespace): Command line.

    Returns:
        dict[object, list[float]]: Seconds of each step, round by round.
    """
    seconds = {name: [] for name in steps}
    progress = ProgressBar((args.rounds + 1) * len(steps))
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            seconds[name].append(timed(step, args.device))
            progress.update()
    print()
    return {name: times[1:] for name, times in seconds.items()}


def run(args: argparse.Namespace) -> list[dict]:
    """Measure every contender.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        list[dict]: Figures of each, in the order of the command line.
    """
    memory = {name: dict(peak_memory_gib=None, step_memory_gib=None) for name in args.contenders}
    if args.device == 'cpu' and not args.no_memory:
        for name in args.contenders:
            print(f'Peak memory of {CONTENDERS[name][0]} ...', flush=True)
            command = [sys.executable, *sys.argv, '--memory-of', name]
            memory[name] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    contenders = {}
    for name in args.contenders:
        if args.device == 'cpu' or args.no_memory:
            contenders[name] = Contender(name, args)
        else:
            contenders[name], memory[name] = measure_memory(name, args)
    seconds = time_in_turn({name: contender.step for name, contender in contenders.items()}, args)
    rate = matrix_rate(args)
    results = []
    for name, contender in contenders.items():
        median = statistics.median(seconds[name])
        multiply_adds = count_multiply_adds(contender.model.loss, contender.images[:1], None) // contender.num_views
        ratios = [own / other for own, other in zip(seconds[name], seconds.get(args.reference, []))]
        results.append(
            dict(
                name=CONTENDERS[name][0],
                seconds_per_step=median,
                images_per_second=args.batch_size / median,
                decoded_per_second=len(contender.images) / median,
                ratio=statistics.median(ratios) if ratios else None,
                **memory[name],
                multiply_adds=multiply_adds,
                share_of_matrix_rate=3 * multiply_adds * args.batch_size / median / rate,
                all_seconds=seconds[name],
            )
        )
    return results


def print_stage_times(args: argparse.Namespace) -> None:
    """Print the seconds of forward and backward of stages 1 and 2, visible blocks only, at several mask ratios."""
    steps, tokens = {}, {}
    for ratio in args.stage_ratios:
        model = convmae(argparse.Namespace(**{**vars(args), 'mask_ratio': ratio}), 'visible').to(args.device).train()
        images = torch.randn(args.batch_size, 3, 224, 224, device=args.device)
        mask = model.generate_mask(images)
        tokens[ratio] = mask.ids_keep.shape[1]

        def step(backbone=model.backbone, images=images, mask=mask) -> None:
            stages = backbone.forward_visible_stages(images.permute(0, 2, 3, 1), mask)
            sum(x.float().square().mean() for x in stages).backward()
            backbone.zero_grad()

        steps[ratio] = step
    rows = []
    for ratio, times in time_in_turn(steps, args).items():
        median = statistics.median(times)
        ms_a_block = median / tokens[ratio] / args.batch_size * 1e3
        rows.append((ratio, tokens[ratio], f'{median:.3f}', f'{ms_a_block:.3f}'))
    print(markdown_table(('mask ratio', 'visible blocks', 'stages 1 and 2, s', 'ms a visible block'), rows))


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(measure_memory(args.memory_of, args)[1]))
        return
    if args.stage_ratios:
        print_stage_times(args)
        return
    results = run(args)
    print(figures_table(COLUMNS, results, args.reference))
    if args.json:
        with write_whole(args.json) as path:
            path.write_text(json.dumps(results, indent=1))
    if args.chart:
        label = f's / step: batch {args.batch_size}, {args.dtype}, {args.device}'
        seconds = [result['seconds_per_step'] for result in results]
        draw_bars([result['name'] for result in results], {label: seconds}, args.chart)


if __name__ == '__main__':
    main()
