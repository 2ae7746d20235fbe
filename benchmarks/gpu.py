"""Measure on a GPU all that only a GPU can tell, in one call of a few minutes.

python benchmarks/gpu.py --out FOLDER [--batch-sizes 128 256 --size 1024]

1. Kernel: the tile convolution of stages 1 and 2 in bfloat16, against float64 on whole masked maps, and its time beside
   the same operator made of PyTorch's, the dense convolution and the published form's.
2. Pretraining: benchmarks/pretrain_speed.py with every contender, at each batch size, in bfloat16.
3. Profile: which kernels a step of the visible-only form spends its time in.
4. Attention: the backbones of the detection configs, forward and backward, with the mask that SDPA takes against
   flex_attention, which reads the relative positions from their tables.

Everything has random weights and images. A part that fails is named, and the others go on. FOLDER gets gpu.md and
gpu.json.
"""

import argparse
import json
import runpy
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from measuring import peak_memory_gib, timed
from mmengine.registry import init_default_scope
from pretrain_speed import CONTENDERS, ROOT, Contender
from torch import Tensor

from mmconvmae.models import ConvMAEMaskGenerator, ConvViT
from mmconvmae.models.layers import (
    TileIndex,
    attention,
    cut_tiles,
    join_tiles,
    relative_position,
    take_blocks,
    tile_conv,
)
from mmconvmae.registry import MODELS
from mmconvmae.utils import markdown_table, write_whole

# The files that say what the backbone is, of which each adds to the one before.
_PAPER = 'mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'
DETECTORS = {
    'ConvMAE, tables of biases': [_PAPER],
    'ViTDet form, decomposed': [_PAPER, 'mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco.py'],
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder for gpu.md and gpu.json')
    parser.add_argument('--arch', choices=ConvViT.arch_zoo, default='base')
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[128, 256], help='of pretraining')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS), help='of pretraining')
    parser.add_argument('--rounds', type=int, default=5, help='timed steps of each')
    parser.add_argument('--size', type=int, default=1024, help='edge of the images of detectors')
    parser.add_argument('--device', default='cuda', help='cpu tries the script out')
    args = parser.parse_args()
    # Without units for it bfloat16 is many times as slow as float32.
    args.dtype = 'bfloat16' if args.device == 'cuda' else 'float32'
    return args


def milliseconds(step: Callable[[], object], device: str, calls: int = 5) -> float:
    """Time a call: the median over rounds of several calls each, after two that are not counted."""
    step(), step()
    rounds = [timed(lambda: [step() for _ in range(calls)], device) for _ in range(5)]
    return statistics.median(rounds) / calls * 1e3


def relative_error(x: Tensor, reference: Tensor) -> float:
    return ((x.double() - reference).norm() / reference.norm()).item()


def masked_map(tiles: Tensor, index: TileIndex) -> Tensor:
    """Lay tiles (B, N, t, t, C) on maps of zeros: (B, C, H, W), channels last in memory."""
    batch, _, size, _, channels = tiles.shape
    rows, columns = index.grid
    places = tiles.new_zeros(batch, rows * columns, size, size, channels)
    places = places.scatter(1, index.ids[..., None, None, None].expand_as(tiles), tiles)
    return join_tiles(places, index.grid).permute(0, 3, 1, 2)


def convolve_maps(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def measure_kernel(args: argparse.Namespace) -> tuple[str, list[dict]]:
    """Errors and times of the tile convolution.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        tuple[str, list[dict]]: Table and figures.
    """
    rows, dtype, batch = [], getattr(torch, args.dtype), max(args.batch_sizes)
    grid, widths = (14, 14), ConvViT.arch_zoo[args.arch]['embed_dims']
    for stage, size in ((1, 4), (2, 2)):
        channels = widths[stage - 1]
        mask = ConvMAEMaskGenerator(mask_ratio=0.75)(batch, grid, torch.device(args.device))
        index = TileIndex.from_ids(mask.ids_keep, grid)
        x = torch.randn(*index.ids.shape, size, size, channels, device=args.device, dtype=dtype)
        upstream = torch.randn_like(x)
        weight = torch.randn(channels, 1, 5, 5, device=args.device) / 5
        bias = torch.randn(channels, device=args.device)

        def gathered(x, weight, bias, index):
            with mock.patch.object(tile_conv, 'tile_conv2d_triton', None):
                return tile_conv.tile_conv2d(x, weight.to(x.dtype), bias, index)

        def dense(x, weight, bias, index):
            maps = convolve_maps(masked_map(x, index), weight.to(x.dtype), bias.to(x.dtype))
            return take_blocks(cut_tiles(maps.permute(0, 2, 3, 1), x.shape[2]), index.ids)

        ways = {'as the models have it': tile_conv.tile_conv2d, "of PyTorch's operators": gathered}
        few = TileIndex(index.ids[:8], index.slots[:8], grid)
        tensors = [tensor.requires_grad_() for tensor in (x[:8].double(), weight.double(), bias.double())]
        out = dense(*tensors, few)
        reference = [out, *torch.autograd.grad(out, tensors, upstream[:8].double())]
        for name, way in dict(ways, **{'dense, through tiles': dense}).items():
            tensors = [tensor.detach().clone().requires_grad_() for tensor in (x[:8], weight, bias)]
            out = way(*tensors, few)
            outputs = [out, *torch.autograd.grad(out, tensors, upstream[:8])]
            errors = [relative_error(ours, theirs) for ours, theirs in zip(outputs, reference)]
            tensors = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
            rows.append(time_both(f'stage {stage}, {name}', partial(way, *tensors, index), tensors, upstream, args))
            rows[-1]['errors'] = errors
        # What the dense and the published form convolve: whole maps, laid out before.
        maps = masked_map(x, index).contiguous(memory_format=torch.channels_last)
        for name, layout in (('channels last', torch.channels_last), ('channels first', torch.contiguous_format)):
            tensors = [
                maps.contiguous(memory_format=layout).requires_grad_(),
                weight.detach().to(dtype).requires_grad_(),
                bias.detach().to(dtype).requires_grad_(),
            ]
            grad = torch.randn_like(tensors[0])
            rows.append(
                time_both(f'stage {stage}, whole maps, {name}', partial(convolve_maps, *tensors), tensors, grad, args)
            )
            rows[-1]['errors'] = None
        copied = 2 * x.numel() * x.element_size()
        copy = milliseconds(partial(upstream.copy_, x), args.device)
        rows.append(
            dict(
                name=f'stage {stage}, a copy: {copied / copy / 1e9:.2f} TB/s', forward=copy, backward=None, errors=None
            )
        )
    table = markdown_table(
        ('', 'forward, ms', 'backward, ms', 'relative error of output, gradients of x, weight, bias'),
        [
            (
                row['name'],
                f'{row["forward"]:.3f}',
                '-' if row['backward'] is None else f'{row["backward"]:.3f}',
                '-' if row['errors'] is None else ', '.join(f'{error:.1e}' for error in row['errors']),
            )
            for row in rows
        ],
    )
    return (
        f'Batch {batch}, {args.dtype}, mask ratio 0.75, kernel 5 x 5; errors against float64, batch 8.\n\n{table}',
        rows,
    )


def time_both(name: str, run: Callable, tensors: list[Tensor], upstream: Tensor, args: argparse.Namespace) -> dict:
    """Time a function forward, and backward by the difference to both."""
    with torch.no_grad():
        forward = milliseconds(run, args.device)
    both = milliseconds(lambda: torch.autograd.grad(run(), tensors, upstream), args.device)
    return dict(name=name, forward=forward, backward=both - forward)


def measure_pretraining(args: argparse.Namespace) -> tuple[str, dict]:
    """Run the bench of pretraining steps.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        tuple[str, dict]: Tables, and figures by batch size.

    Raises:
        RuntimeError: If a run fails.
    """
    tables, figures = [], {}
    reference = 'mae' if 'mae' in args.contenders else args.contenders[0]
    for batch in args.batch_sizes:
        file = args.out / f'pretrain_speed_{batch}.json'
        command = [sys.executable, Path(__file__).with_name('pretrain_speed.py'), '--device', args.device]
        command += ['--arch', args.arch, '--batch-size', str(batch), '--rounds', str(args.rounds), '--json', file]
        command += ['--dtype', args.dtype, '--contenders', *args.contenders, '--reference', reference]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            tables.append(f'Batch {batch} failed: {result.stderr.strip().splitlines()[-1]}')
            continue
        tables.append(f'Batch {batch}:\n\n' + result.stdout[result.stdout.index('| ') :].strip())
        figures[batch] = json.loads(file.read_text())
        file.unlink()
    if not figures:
        raise RuntimeError('\n'.join(tables))
    return '\n\n'.join(tables), figures


def profile_step(args: argparse.Namespace) -> tuple[str, list]:
    """Sum the time of a step by kernel.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        tuple[str, list]: Table, and names with milliseconds a step.
    """
    options = argparse.Namespace(
        arch=args.arch,
        batch_size=max(args.batch_sizes),
        mask_ratio=0.75,
        dtype=args.dtype,
        device=args.device,
        optimizer=False,
    )
    contender = Contender('visible', options)
    contender.step(), contender.step()
    steps, activity = 3, torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if args.device == 'cuda' else activity.CPU]) as profiler:
        for _ in range(steps):
            contender.step()
    key = 'self_device_time_total' if args.device == 'cuda' else 'self_cpu_time_total'
    events = [(event.key, getattr(event, key) / steps / 1e3, event.count / steps) for event in profiler.key_averages()]
    events = sorted(events, key=lambda event: -event[1])
    total = sum(ms for _, ms, _ in events)
    rows = [(name[:90], f'{ms:.2f}', f'{ms / total:.1%}', f'{count:.0f}') for name, ms, count in events[:25]]
    rows.append(('all', f'{total:.2f}', '', ''))
    return markdown_table(('kernel', 'ms / step', 'share', 'calls'), rows), events


class TableInFlexAttention(NamedTuple):
    """What :class:`TableBias` is, read from the table itself.

    Args:
        table (Tensor): Shape (heads, 2 * h - 1, 2 * w - 1).
    """

    table: Tensor

    def score_mod(self, query: Tensor, window: tuple[int, int]) -> Callable:
        table, columns = self.table, window[1]
        rows_off, columns_off = self.table.shape[1] // 2, self.table.shape[2] // 2

        def score_mod(score, batch, head, q, k):
            row = q // columns - k // columns + rows_off
            return score + table[head, row, q % columns - k % columns + columns_off]

        return score_mod


def decomposed_score_mod(self, query: Tensor, window: tuple[int, int]) -> Callable:
    rows, columns = window
    maps = query.unflatten(2, window)
    by_row = torch.einsum('nhyxd,ykd->nhyxk', maps, self.rows[:rows, :rows]).flatten(2, 3).contiguous()
    by_column = torch.einsum('nhyxd,xkd->nhyxk', maps, self.columns[:columns, :columns]).flatten(2, 3).contiguous()

    def score_mod(score, batch, head, q, k):
        return score + by_row[batch, head, q, k // columns] + by_column[batch, head, q, k % columns]

    return score_mod


@contextmanager
def flex_attention_in_place(device: str) -> Iterator[None]:
    """Have the models' attention be flex_attention, compiled on a GPU."""
    from torch.nn.attention.flex_attention import flex_attention

    flex = torch.compile(flex_attention, dynamic=False) if device == 'cuda' else flex_attention

    def attend(self, qkv, window, positions):
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous()
        return flex(q, k, v, score_mod=positions.score_mod(q, window)).transpose(1, 2).flatten(2)

    def table(self, window):
        offsets = tuple(2 * edge - 1 for edge in window)
        weight = relative_position.in_autocast_type(super(type(self), self).forward(offsets))
        return TableInFlexAttention(weight.reshape(*offsets, -1).permute(2, 0, 1).contiguous())

    with (
        mock.patch.object(attention.WindowAttention, '_attend', attend),
        mock.patch.object(relative_position.RelativePositionBias, '_spread', table),
        mock.patch.object(relative_position.DecomposedBias, 'score_mod', decomposed_score_mod, create=True),
    ):
        yield


@contextmanager
def mask_in_place(device: str) -> Iterator[None]:
    """Leave the models' attention as it is."""
    yield


def measure_attention(args: argparse.Namespace) -> tuple[str, list[dict]]:
    """Time the backbones of detectors with either attention.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        tuple[str, list[dict]]: Table and figures.
    """
    rows = []
    for name, files in DETECTORS.items():
        settings = {}
        for file in files:  # run as they are: to read them as configs takes mmdet, and the backbone does not
            settings.update(runpy.run_path(str(ROOT / 'configs' / 'detection' / file))['model']['backbone'])
        settings.pop('_delete_')
        settings.update(arch=args.arch, img_size=args.size, init_cfg=None, drop_path_rate=0.0)
        depth = ConvViT.arch_zoo[args.arch]['depths'][2]
        settings['global_attn_indexes'] = [i for i in settings['global_attn_indexes'] if i < depth]
        torch.manual_seed(0)
        backbone = MODELS.build(settings).to(args.device)
        for key, parameter in backbone.named_parameters():
            if 'rel_pos' in key:
                torch.nn.init.trunc_normal_(parameter, std=0.02)
        images = torch.randn(2, 3, args.size, args.size, device=args.device)

        def step(backbone=backbone, images=images):
            on_gpu = args.device == 'cuda'
            with torch.autocast(args.device, torch.bfloat16, enabled=on_gpu), torch.set_grad_enabled(on_gpu):
                feats = backbone(images)
            if on_gpu:  # flex_attention has no backward pass on a CPU
                sum(x.float().square().mean() for x in feats).backward()
                backbone.zero_grad()
            return feats[-1].detach().double()

        outputs = {}
        for way, context in dict(mask=mask_in_place, flex_attention=flex_attention_in_place).items():
            with context(args.device):
                backbone.train()
                outputs[way] = step()
                if args.device == 'cuda':
                    torch.cuda.reset_peak_memory_stats()
                ms = milliseconds(step, args.device, calls=1)
            rows.append(dict(name=f'{name}, {way}', ms=ms, peak_memory_gib=peak_memory_gib(args.device)))
        rows[-1]['difference'] = relative_error(outputs['flex_attention'], outputs['mask'])
        del backbone, images, step, outputs
    table = markdown_table(
        ('', 'forward and backward, ms', 'memory, GiB', "difference of the last map's norm"),
        [
            (
                row['name'],
                f'{row["ms"]:.1f}',
                f'{row["peak_memory_gib"]:.2f}',
                f'{row["difference"]:.1e}' if 'difference' in row else '-',
            )
            for row in rows
        ],
    )
    return f'Backbone alone, {args.size} x {args.size}, batch 2, {args.dtype}.\n\n{table}', rows


PARTS = {
    'Kernel': measure_kernel,
    'Pretraining': measure_pretraining,
    'Profile of a step': profile_step,
    'Attention of detectors': measure_attention,
}


def main() -> None:
    args = parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('Error: there is no GPU; run this where one is, or try it out with --device cpu.')
    init_default_scope('mmpretrain')
    name = torch.cuda.get_device_name() if args.device == 'cuda' else 'a CPU'
    pages, figures, failed = [f'# On {name}, PyTorch {torch.__version__}'], {}, []
    args.out.mkdir(parents=True, exist_ok=True)
    for title, measure in PARTS.items():
        print(f'{title} ...', flush=True)
        try:
            page, figures[title] = measure(args)
        except Exception as error:  # the other parts are worth a GPU's time
            traceback.print_exc()
            failed.append(title)
            page = f'Failed: {type(error).__name__}: {error}'
        pages += [f'## {title}', page]
        print(f'{page}\n', flush=True)
        with write_whole(args.out / 'gpu.md') as path:
            path.write_text('\n\n'.join(pages) + '\n')
        with write_whole(args.out / 'gpu.json') as path:
            path.write_text(json.dumps(dict(device=name, torch=torch.__version__, figures=figures), indent=1))
    if failed:
        sys.exit(f'Error: {", ".join(failed)} failed.')


if __name__ == '__main__':
    main()
