"""Train the tiny model for many steps in bfloat16 on crops of real images, and watch loss and memory.

python tests/campaigns/long_run.py IMAGES OUT [--steps 100000] [--minutes 60] [--size 64] [--batch-size 8]

Stops at the first loss that is not finite. OUT gets curve.png and figures.json, also when it is stopped by hand.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib
import torch
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

import mmconvmae  # noqa: F401
from mmconvmae.registry import DATASETS, MODELS
from mmconvmae.utils import write_whole

matplotlib.use('Agg')
import matplotlib.pyplot as plt

EVERY = 100  # steps between two points of the curves


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, help='folder of images')
    parser.add_argument('out', type=Path, help='folder')
    parser.add_argument('--steps', type=int, default=100_000)
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--size', type=int, default=64, help='edge of the crops, in pixels')
    parser.add_argument('--batch-size', type=int, default=8)
    return parser.parse_args()


def resident_mib() -> float:
    """Memory that this process has now, in MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 2**20


def batches(args: argparse.Namespace):
    """Batches without end, each epoch in another order."""
    crop = dict(type='mmconvmae.LoadRandomResizedCrop', scale=args.size, crop_ratio_range=(0.2, 1.0))
    data = DATASETS.build(
        dict(
            type='mmconvmae.ImageFolder',
            data_root=str(args.images),
            skip_damaged=True,
            pipeline=[crop, dict(type='PackInputs')],
        )
    )
    sampler = DefaultSampler(data, seed=0)
    loader = DataLoader(data, args.batch_size, sampler=sampler, drop_last=True, collate_fn=lambda samples: samples)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for samples in loader:
            images = torch.stack([sample['inputs'] for sample in samples]).float()
            yield (images - 128) / 64
        epoch += 1


def write(args: argparse.Namespace, points: list[tuple[int, float, float]], seconds: float) -> None:
    """Write curves and figures of (step, mean loss, MiB)."""
    steps, losses, memory = zip(*points)
    half = len(points) // 2
    figures = dict(
        steps=steps[-1],
        minutes=round(seconds / 60, 1),
        first_loss=losses[0],
        last_loss=losses[-1],
        memory_mib=dict(first=memory[0], half=memory[half], last=memory[-1], largest=max(memory)),
    )
    with write_whole(args.out / 'figures.json') as path:
        path.write_text(json.dumps(figures, indent=1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout='constrained')
    left.plot(steps, losses)
    left.set(xlabel='steps', ylabel='loss', yscale='log')
    right.plot(steps, memory)
    right.set(xlabel='steps', ylabel='memory, MiB', ylim=(0, 1.2 * max(memory)))
    with write_whole(args.out / 'curve.png') as path:
        figure.savefig(path, dpi=120, format='png')
    plt.close(figure)
    print(json.dumps(figures), flush=True)


def main() -> None:
    args = parse_args()
    MMLogger.get_instance('mmengine', log_level='WARNING')  # each parameter's initial values are news to it
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            backbone=dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=args.size),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=96, depth=2, num_heads=6),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model.to(device)
    begin, points, losses = time.monotonic(), [], []
    for step, images in enumerate(batches(args), 1):
        with torch.autocast(device, torch.bfloat16):
            loss = model.loss(images.to(device), [])['loss']
        if not loss.isfinite():
            write(args, points, time.monotonic() - begin)
            raise SystemExit(f'The loss is {loss.item()} in step {step}.')
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds = time.monotonic() - begin
        if step % EVERY == 0:
            points.append((step, sum(losses) / len(losses), resident_mib()))
            losses.clear()
        if step % (50 * EVERY) == 0:
            left = min(args.minutes * 60 - seconds, seconds / step * (args.steps - step))
            print(
                f'step {step}, loss {points[-1][1]:.4f}, {points[-1][2]:.0f} MiB, ETA {left / 60:.0f} min', flush=True
            )
        if step >= args.steps or seconds > args.minutes * 60:
            break
    write(args, points, time.monotonic() - begin)


if __name__ == '__main__':
    main()
