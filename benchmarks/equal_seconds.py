"""Compare ways to pretrain by what a small backbone has learnt after the same number of seconds.

python benchmarks/equal_seconds.py FLOWERS [--seconds 0 300 1500 3000 --seeds 0 1 2 --out FOLDER]

FLOWERS is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg. Each contender is pretrained on the training images
without their labels, and on those of --more-images. Each time that as many seconds have gone as --seconds says, its
backbone's features of the labelled images, the mean over the last map, each standardised by the training images, are
judged by a linear probe and by nearest neighbours on val. Beside them stands the pretraining loss of the images in val,
which compares all but SparK and SimMIM: they predict the same pixels of patches of the same size, a quarter of which is
visible.

Seconds are CPU time of one thread, with reading and cropping. First a step of each contender is timed, in turn; a
number of seconds is as many steps, so it does not matter what else the machine does then. One run serves all numbers
of seconds: its learning rate is constant after a warm-up, and judged is the average of its weights so far, in which the
last ninth of the steps weighs most. A run that is in --out is not done again, and tables are made of all that are
there. Several processes may share --out with different --seeds or --contenders, once the first says that it has timed
the steps.

The probe is a logistic regression on standardised features; a fifth of the training images says how strong its weight
decay is. All contenders have the same optimiser, schedule, crops and number of masked images in a step, and a learning
rate each.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from mmengine.utils import ProgressBar
from mmpretrain.models import SimMIM
from mmpretrain.models.utils.sparse_modules import SparseHelper
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mmconvmae.datasets import find_images
from mmconvmae.models import ConvMAE
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_parameters, markdown_table, write_whole

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'analysis_tools'))
from knn import vote  # noqa: E402

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

PIXELS = dict(type='PixelReconstructionLoss', criterion='L2')
DECODER = dict(embed_dims=128, depth=2, num_heads=4)
WEIGHT_DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBORS = 20
WARM_UP = 200  # steps
MEASURES = dict(probe='linear probe, %', knn='k-NN, %', loss='held-out loss')


def convmae(size: int, generator: str = 'ConvMAEMaskGenerator', **neck) -> dict:
    return dict(
        type='mmconvmae.ConvMAE',
        mask_generator=dict(type=f'mmconvmae.{generator}', mask_ratio=0.75),
        backbone=dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=size),
        neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', **dict(DECODER, **neck)),
        head=dict(type='mmconvmae.ConvMAEPretrainHead'),
    )


def mae(size: int) -> dict:
    # of ConvViT's tiny the width and the heads, and as many layers as make it about as large
    arch = dict(embed_dims=192, num_layers=7, num_heads=6, feedforward_channels=4 * 192)
    return dict(
        type='mmpretrain.MAE',
        backbone=dict(type='MAEViT', arch=arch, img_size=size, patch_size=16, mask_ratio=0.75),
        neck=dict(
            type='MAEPretrainDecoder',
            num_patches=(size // 16) ** 2,
            embed_dim=192,
            decoder_embed_dim=DECODER['embed_dims'],
            decoder_depth=DECODER['depth'],
            decoder_num_heads=DECODER['num_heads'],
        ),
        head=dict(type='MAEPretrainHead', norm_pix=True, loss=PIXELS),
    )


def spark(size: int) -> dict:
    # mmpretrain's config, with the smallest ConvNeXt that it has, and the mask ratio of the recipe
    return dict(
        type='mmpretrain.SparK',
        input_size=size,
        downsample_raito=32,
        mask_ratio=0.6,
        enc_dec_norm_cfg=dict(type='SparseLN2d', eps=1e-6),
        enc_dec_norm_dim=320,
        backbone=dict(type='SparseConvNeXt', arch='atto', out_indices=(0, 1, 2, 3), gap_before_output=False),
        neck=dict(type='SparKLightDecoder', feature_dim=128, upsample_ratio=32, mid_channels=0, last_act=False),
        head=dict(type='SparKPretrainHead', loss=PIXELS),
    )


class SelfMaskedSimMIM(SimMIM):
    """SimMIM that draws its own masks, on the device.

    mmpretrain's :class:`SimMIMMaskGenerator` makes them in NumPy in a dataset's pipeline, where a step that a GPU has
    recorded would not draw others. It rounds the number of hidden cells up, this one to the nearest.
    """

    cell, mask_ratio = 32, 0.6  # pixels of an edge of what is hidden at once, and the share of cells that are

    def loss(self, inputs: Tensor, data_samples: None) -> dict[str, Tensor]:
        return super().loss(inputs, [DataSample(mask=mask) for mask in self.draw_masks(inputs)])

    def draw_masks(self, images: Tensor) -> Tensor:
        """Draw masks of square images (B, 3, H, W): (B, H / 4, W / 4), 1 for each patch of 4 pixels that is hidden."""
        cells = images.shape[2] // self.cell
        ranks = torch.rand(len(images), cells**2, device=images.device).argsort(1).argsort(1)
        masks = (ranks < round(self.mask_ratio * cells**2)).float().view(-1, 1, cells, cells)
        return F.interpolate(masks, scale_factor=self.cell // 4)[:, 0]


def simmim(size: int) -> dict:
    # mmpretrain's config, with the width of ConvViT's first stage and blocks that make it about as large; windows of 6
    # where they divide the maps as they do there, else of 4
    arch = dict(embed_dims=48, depths=[2, 2, 2, 1], num_heads=[2, 4, 8, 16])
    stages = dict(block_cfgs=dict(window_size=4 if size % 96 else 6), pad_small_map=True)
    return dict(
        type=SelfMaskedSimMIM,
        backbone=dict(type='SimMIMSwinTransformer', arch=arch, img_size=size, stage_cfgs=stages, drop_path_rate=0.0),
        neck=dict(type='SimMIMLinearDecoder', in_channels=384, encoder_stride=32),
        head=dict(
            type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
        ),
    )


class Contender(NamedTuple):
    """What is compared.

    Args:
        heading (str): Of its row.
        config (Callable[[int], dict]): Gives the model for an edge of the images.
        lr (float): Learning rate: of 2e-4 and 1e-3 that which did better in a linear probe after 750 s, at 96 pixels,
            with batches of 32 and seed 0; those that are forms of ConvMAE have the rate of the paper's form.
        num_views (int): Masks of an image. Defaults to 1.
    """

    heading: str
    config: Callable[[int], dict]
    lr: float
    num_views: int = 1


CONTENDERS = {
    'paper': Contender("ConvMAE, the paper's form", convmae, 2e-4),
    'half': Contender('predict ratio 0.5', partial(convmae, predict_ratio=0.5), 2e-4),
    'quarter': Contender('predict ratio 0.25', partial(convmae, predict_ratio=0.25), 2e-4),
    'fast': Contender('predict ratio 0.5, half the decoder', partial(convmae, predict_ratio=0.5, depth=1), 2e-4),
    'complementary': Contender(
        'complementary masks', partial(convmae, generator='ComplementaryMaskGenerator'), 2e-4, 4
    ),
    'mae': Contender('MAE, ViT (mmpretrain)', mae, 1e-3),
    'spark': Contender('SparK, ConvNeXt-atto (mmpretrain)', spark, 1e-3),
    'simmim': Contender('SimMIM, Swin (mmpretrain)', simmim, 1e-3),
}
OTHER_LOSSES = ('spark', 'simmim')  # of other patches or of other pixels


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='folder with train/CLASS and val/CLASS')
    parser.add_argument('--more-images', nargs='+', type=Path, default=[], metavar='FOLDER', help='to pretrain on too')
    parser.add_argument('--contenders', nargs='+', choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument('--seconds', nargs='+', type=float, default=[0, 300, 1500, 3000], help='0: random weights')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--size', type=int, default=96, help='edge of the images, a multiple of 32')
    parser.add_argument('--batch-size', type=int, default=32, help='masked images in a step, a multiple of 4')
    parser.add_argument('--lr', type=float, help='of all contenders, instead of their own')
    parser.add_argument('--timed-steps', type=int, default=20, help='of each contender, after three that are not')
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'equal_seconds'))
    args = parser.parse_args()
    if args.size % 32 or args.size < 64 or args.batch_size % 4 or args.batch_size < 4:
        parser.error('--size is a multiple of 32 from 64 on, and --batch-size one of 4')
    if min(args.seconds) < 0 or args.timed_steps < 1:
        parser.error('--seconds are not negative, and --timed-steps at least 1')
    args.seconds = sorted(set(args.seconds))
    return args


class Training:
    """A contender in training: model, optimiser and batches, with random weights and crops by a seed.

    Args:
        name (str): The contender.
        seed (int): Of weights, crops, masks and the order of images.
        args (argparse.Namespace): Command line.
    """

    def __init__(self, name: str, seed: int, args: argparse.Namespace) -> None:
        set_random_seed(seed)
        contender = CONTENDERS[name]
        preprocessor = dict(
            type='mmconvmae.ImageDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
        )
        self.model = MODELS.build(dict(contender.config(args.size), data_preprocessor=preprocessor))
        self.model.init_weights()
        self.model.train()
        groups = [
            dict(params=[p for p in self.model.parameters() if p.requires_grad and p.ndim > 1]),
            dict(params=[p for p in self.model.parameters() if p.requires_grad and p.ndim <= 1], weight_decay=0.0),
        ]
        self.rate, self.taken = args.lr or contender.lr, 0
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.95), weight_decay=0.05)
        # polynomial decay averaging: the n-th step has a weight of 9 / (n + 8)
        self.averaged = AveragedModel(self.model, avg_fn=lambda mean, new, n: mean + (new - mean) * 9 / (n + 9))
        pipeline = [
            dict(type='mmconvmae.LoadRandomResizedCrop', scale=args.size, crop_ratio_range=(0.2, 1.0)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ]
        folders = [
            dict(type='mmconvmae.ImageFolder', data_root=str(folder), pipeline=pipeline)
            for folder in (args.data / 'train', *args.more_images)
        ]
        loader = dict(
            batch_size=args.batch_size // contender.num_views,
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='ConcatDataset', datasets=folders),
        )
        self.batches = iter(Runner.build_dataloader(loader, seed=seed))

    def step(self) -> None:
        """Take a step, at a rate that grows over the first steps and is constant then."""
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate * min((self.taken + 1) / WARM_UP, 1)
        batch = self.model.data_preprocessor(next(self.batches), True)
        loss = self.model.loss(**batch)['loss']
        if not loss.isfinite():
            raise ValueError(f'The loss is {loss.item()}; lower --lr.')
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.averaged.update_parameters(self.model)
        self.taken += 1


def time_steps(args: argparse.Namespace) -> dict[str, float]:
    """Time a step of each contender, in turn.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        dict[str, float]: Median CPU seconds.
    """
    trainings = {name: Training(name, 0, args) for name in CONTENDERS}
    seconds = {name: [] for name in trainings}
    progress = ProgressBar((args.timed_steps + 3) * len(trainings))
    for _ in range(args.timed_steps + 3):
        for name, training in trainings.items():
            start = time.process_time()
            training.step()
            seconds[name].append(time.process_time() - start)
            progress.update()
    print()
    return {name: statistics.median(values[3:]) for name, values in seconds.items()}


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> Tensor:
    """Features of whole images, the mean over the last map: (N, 3, H, W), uint8, becomes (N, C)."""
    model.eval()
    outputs = []
    for batch in images.split(64):
        inputs = model.data_preprocessor(dict(inputs=batch, data_samples=None))['inputs']
        # of SparK, whose layers ask what is visible: everything
        SparseHelper._cur_active = torch.ones(len(batch), 1, *(edge // 32 for edge in batch.shape[2:]))
        x = model.backbone(inputs) if isinstance(model, ConvMAE) else model.extract_feat(inputs)
        x = x[-1]
        # MAE gives a class token and those of patches, the others maps.
        outputs.append(x[:, 1:].mean(1) if x.ndim == 3 else x.mean((2, 3)))
    return torch.cat(outputs).double()


def fit(x: Tensor, labels: Tensor, weight_decay: float) -> nn.Linear:
    """Fit a logistic regression to features (N, C), float64, and labels (N, )."""
    layer = nn.Linear(x.shape[1], int(labels.max()) + 1, dtype=x.dtype, device=x.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(x), labels) + weight_decay * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def probe(train: Tensor, labels: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """Classify by logistic regression, whose weight decay is chosen on a fifth of the training features.

    Args:
        train (Tensor): Standardised features, shape (N, C), float64.
        labels (Tensor): Their classes, shape (N, ).
        test (Tensor): Features to classify, shape (M, C).

    Returns:
        tuple[Tensor, float]: Classes, shape (M, ), and the weight decay.
    """
    held_out = torch.arange(len(train)) % 5 == 0
    inner, outer = (train[~held_out], labels[~held_out]), (train[held_out], labels[held_out])
    rightly = [(fit(*inner, decay)(outer[0]).argmax(1) == outer[1]).sum().item() for decay in WEIGHT_DECAYS]
    decay = max(zip(rightly, WEIGHT_DECAYS))[1]  # of equals the strongest
    return fit(train, labels, decay)(test).argmax(1), decay


def load_labelled(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """Load labelled images.

    Args:
        folder (Path): Has a folder for each class.
        size (int): Edge of the square that is cut out of the middle.

    Returns:
        tuple[Tensor, Tensor]: Images of shape (N, 3, size, size), uint8, and labels of shape (N, ).
    """
    pipeline = [
        dict(type='mmconvmae.LoadWholeImage'),
        dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]
    loader = dict(
        batch_size=64,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='CustomDataset', data_root=str(folder), pipeline=pipeline),
    )
    batches = list(Runner.build_dataloader(loader))
    labels = [sample.gt_label.item() for batch in batches for sample in batch['data_samples']]
    return torch.cat([batch['inputs'] for batch in batches]), torch.tensor(labels)


@torch.no_grad()
def held_out_loss(model: nn.Module, images: Tensor) -> float:
    """Pretraining loss of images, (N, 3, H, W), uint8; masks are the same each time."""
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        batches = [model.data_preprocessor(dict(inputs=batch, data_samples=None)) for batch in images.split(64)]
        losses = [model.loss(**batch)['loss'] * len(batch['inputs']) for batch in batches]
    return (sum(losses) / len(images)).item()


def judge(model: nn.Module, labelled: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Measure the accuracy of a model's features, and its loss.

    Args:
        model (nn.Module): The pretrained model.
        labelled (dict[str, tuple[Tensor, Tensor]]): Images and labels of 'train' and 'val'.

    Returns:
        dict[str, float]: ``probe`` and ``knn`` in per cent, the weight decay of the probe and the loss of 'val'.
    """
    train, test = (features(model, labelled[part][0]) for part in ('train', 'val'))
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-12)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    (_, labels), (_, expected) = labelled['train'], labelled['val']
    classes, decay = probe(train, labels, test)
    nearest = vote(train, labels, test, min(NEIGHBORS, len(train)), 0.07)
    return dict(
        probe=100 * (classes == expected).double().mean().item(),
        knn=100 * (nearest == expected).double().mean().item(),
        probe_weight_decay=decay,
        loss=held_out_loss(model, labelled['val'][0]),
    )


def settings(args: argparse.Namespace) -> dict:
    """What the runs in a folder have in common. Folders are known by their number of images: they may be elsewhere."""
    images = [len(find_images(folder)[0]) for folder in (args.data / 'train', *args.more_images)]
    rates = {name: args.lr or contender.lr for name, contender in CONTENDERS.items()}
    return dict(images=images, size=args.size, batch_size=args.batch_size, lr=rates)


def calibrate(args: argparse.Namespace) -> dict:
    """Read the seconds of a step, or time it where that is not done.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        dict: ``settings`` of the runs, and ``seconds`` of CPU time of a step of each contender.

    Raises:
        SystemExit: If --out has runs with other settings.
    """
    file = args.out / 'steps.json'
    if not file.exists():
        print('Timing the steps of all contenders.', flush=True)
        seconds = time_steps(args)
        with write_whole(file) as path:
            path.write_text(json.dumps(dict(settings=settings(args), seconds=seconds), indent=1))
        print(f'{file} has them; other processes may start now.', flush=True)
    found = json.loads(file.read_text())
    if found['settings'] != settings(args):
        sys.exit(f'Error: {args.out} has runs with {found["settings"]}; give those, or another --out.')
    return found


def run(name: str, seed: int, steps: list[int], labelled: dict, args: argparse.Namespace) -> list[dict]:
    """Pretrain a contender, and judge it on the way.

    Args:
        name (str): The contender.
        seed (int): Of weights, crops, masks and the order of images.
        steps (list[int]): After how many steps to judge, ascending.
        labelled (dict[str, tuple[Tensor, Tensor]]): Images and labels of 'train' and 'val'.
        args (argparse.Namespace): Command line.

    Returns:
        list[dict]: Figures after as many steps.
    """
    training = Training(name, seed, args)
    figures, used = [], 0.0
    progress = ProgressBar(steps[-1])
    for number in steps:
        start = time.process_time()
        while training.taken < number:
            training.step()
            progress.update()
        used += time.process_time() - start
        found = judge(training.averaged.module, labelled)  # before the first step the random weights
        values = ', '.join(f'{heading} {found[what]:.3f}' for what, heading in MEASURES.items())
        print(f'\n{name}, seed {seed}, {number} steps: {values}', flush=True)
        decoded = number * args.batch_size // CONTENDERS[name].num_views
        figures.append(dict(found, steps=number, decoded_images=decoded, cpu_seconds=used))
    return figures


def do_runs(args: argparse.Namespace, seconds: dict[str, float]) -> None:
    """Do all runs that are not done.

    Args:
        args (argparse.Namespace): Command line.
        seconds (dict[str, float]): CPU seconds of a step.

    Raises:
        SystemExit: If a run that is there was for other seconds.
    """
    for file in (args.out / 'runs').glob('*.json'):
        if [point['seconds'] for point in json.loads(file.read_text())['points']] != args.seconds:
            sys.exit(f'Error: {file} is a run for other --seconds; give those, or another --out.')
    runs = [
        (args.out / 'runs' / f'{name}_seed{seed}.json', name, seed) for seed in args.seeds for name in args.contenders
    ]
    left = [(file, *which) for file, *which in runs if not file.exists()]
    labelled = {part: load_labelled(args.data / part, args.size) for part in ('train', 'val')} if left else {}
    for i, (file, name, seed) in enumerate(left):
        minutes = (len(left) - i) * args.seconds[-1] / 60
        print(f'{name}, seed {seed}: run {i + 1} of {len(left)}, about {minutes:.0f} minutes of CPU time', flush=True)
        figures = run(name, seed, [int(budget / seconds[name]) for budget in args.seconds], labelled, args)
        points = [dict(point, seconds=budget) for point, budget in zip(figures, args.seconds)]
        with write_whole(file) as path:
            path.write_text(json.dumps(dict(contender=name, seed=seed, points=points), indent=1))


def load_runs(out: Path) -> list[dict]:
    """Read the figures of all runs in a folder: one dictionary for each run and number of seconds."""
    runs = [json.loads(file.read_text()) for file in sorted((out / 'runs').glob('*.json'))]
    return [dict(point, contender=run['contender'], seed=run['seed']) for run in runs for point in run['points']]


def compared(what: str) -> list[str]:
    """Contenders that a measure compares."""
    return [name for name in CONTENDERS if what != 'loss' or name not in OTHER_LOSSES]


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def format_table(results: list[dict], seconds: dict[str, float], num_images: int) -> str:
    """Write figures as a Markdown table.

    Args:
        results (list[dict]): Figures of runs.
        seconds (dict[str, float]): CPU seconds of a step.
        num_images (int): Number of images to pretrain on.

    Returns:
        str: The table: for each contender what it costs and, for each number of seconds, means over the seeds.
    """
    budgets = sorted({point['seconds'] for point in results})
    header = ['', 'seeds', 'backbone, M', 'ms / step', 'epochs in all']
    columns = [(what, budget) for what in MEASURES for budget in budgets]
    header += [f'{MEASURES[what]}, {budget:g} s' for what, budget in columns]
    rows = []
    for name, contender in CONTENDERS.items():
        own = [point for point in results if point['contender'] == name]
        if own:
            longest = max(point['decoded_images'] for point in own)
            backbone = MODELS.build(contender.config(64)).backbone
            row = [contender.heading, len({point['seed'] for point in own}), f'{count_parameters(backbone) / 1e6:.2f}']
            row += [f'{1e3 * seconds[name]:.0f}', f'{longest / num_images:.1f}']
            for what, budget in columns:
                values = [point[what] for point in own if point['seconds'] == budget]
                figures = [f'{value:.{3 if what == "loss" else 1}f}' for value in spread(values)[: len(values)]]
                row.append(' ± '.join(figures) if name in compared(what) else '-')
            rows.append(row)
    return markdown_table(header, rows)


def draw_curves(results: list[dict], out: Path) -> None:
    """Draw figures over seconds, with the deviation over the seeds.

    Args:
        results (list[dict]): Figures of runs.
        out (Path): Picture to write.
    """
    budgets = sorted({point['seconds'] for point in results})
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(14, 4.2), layout='constrained')
    for axis, (what, label) in zip(axes, MEASURES.items()):
        for name in compared(what):
            own = [point for point in results if point['contender'] == name]
            if own:
                # the loss of random weights would leave no room for the others
                shown = budgets[1:] if what == 'loss' and len(budgets) > 1 else budgets
                points = [spread([point[what] for point in own if point['seconds'] == budget]) for budget in shown]
                means, deviations = zip(*points)
                axis.errorbar(shown, means, deviations, capsize=2, marker='o', label=CONTENDERS[name].heading)
        axis.set_xlabel('seconds of pretraining, one thread')
        axis.set_ylabel(label)
    axes[0].legend(fontsize=7)
    with write_whole(out) as path:
        figure.savefig(path, dpi=150, format='png')


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('WARNING')  # or it lists every weight that is initialised
    torch.set_num_threads(1)
    for folder in (args.data / 'train', args.data / 'val', *args.more_images):
        if not folder.is_dir():
            sys.exit(f'Error: there is no folder {folder}.')
    steps = calibrate(args)
    do_runs(args, steps['seconds'])
    results = load_runs(args.out)
    table = format_table(results, steps['seconds'], sum(steps['settings']['images']))
    print(table)
    with write_whole(args.out / 'results.md') as path:
        path.write_text(f'{table}\n')
    draw_curves(results, args.out / 'results.png')


if __name__ == '__main__':
    main()
