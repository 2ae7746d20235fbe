"""Evidence on photographs, detection: Mask R-CNN on animals6 from random weights and from pretrained ones.

python benchmarks/evidence/detection.py ANIMALS [--weights FOLDER --seeds 0 1 --out FOLDER]

ANIMALS has train/, val/ and test/ and annotations/instances_{train,val,test}.json in COCO's format. The weights are
those that evidence.py has written: paper_seed0.pth and so on; a seed has its own pretraining. Each run is the template
for own annotations, configs/own_images/detect.py, with its settings changed; `mim train` does the same with the config
that is written to OUT/configs.

The figure is that after the last epoch: nothing is chosen by it, neither on val nor on test. A run that is in --out is
not done again, and one that was interrupted goes on from its last epoch. Several processes may share --out with
different --starts or --seeds.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import matplotlib
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tables import STARTS, draw_runs, spread
from template import copy_template
from training import machine

from mmconvmae.models import ConvViT
from mmconvmae.runner import ScheduleRunner
from mmconvmae.utils import markdown_table, write_whole

matplotlib.use('Agg')
import matplotlib.pyplot as plt

METRICS = {'bbox': 'box AP', 'segm': 'mask AP'}
# Settings of the command line that all runs in a folder share.
SETTINGS = ('arch', 'image_size', 'batch_size', 'epochs', 'base_lr', 'val_interval')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--weights', type=Path, default=Path('work_dirs', 'evidence', 'weights'), metavar='FOLDER')
    parser.add_argument('--starts', nargs='+', choices=STARTS, default=list(STARTS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1])
    parser.add_argument('--arch', choices=ConvViT.arch_zoo, default='tiny')
    parser.add_argument('--image-size', type=int, default=256, help='edge of the images, a multiple of 32')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--base-lr', type=float, default=2e-4, help='for 16 images a step')
    parser.add_argument('--val-interval', type=int, default=3, help='epochs between the points of the learning curve')
    parser.add_argument('--workers', type=int, default=2, help='processes that load images')
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'evidence', 'detection'))
    return parser.parse_args()


class CurveHook(Hook):
    """Keeps the figures of each validation, also over interruptions.

    Args:
        path (Path): JSON file of a list of points.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points = json.loads(path.read_text()) if path.exists() else []
        self.start = time.perf_counter() - (self.points[-1]['seconds'] if self.points else 0)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        figures = {name: 100 * metrics[f'coco/{name}_mAP'] for name in METRICS}
        point = dict(epoch=runner.epoch, **figures, seconds=time.perf_counter() - self.start)
        self.points = [other for other in self.points if other['epoch'] < runner.epoch] + [point]
        with write_whole(self.path) as partial:
            partial.write_text(json.dumps(self.points, indent=1))


def class_names(ann_file: Path) -> tuple[str, ...]:
    return tuple(category['name'] for category in json.loads(ann_file.read_text())['categories'])


def write_config(start: str, seed: int, args: argparse.Namespace) -> Path:
    """Write the config of a run; gives its path.

    Raises:
        SystemExit: If the run was begun with another config, which stays.
    """
    path = args.out / 'configs' / f'{start}_seed{seed}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else None
    copy_template(
        'detect',
        path,
        data_root=f'{args.data.resolve()}/',
        train_ann_file='annotations/instances_train.json',
        val_ann_file='annotations/instances_val.json',
        classes=class_names(args.data / 'annotations' / 'instances_train.json'),
        arch=args.arch,
        checkpoint=None if start == 'random' else str((args.weights / f'{start}_seed{seed}.pth').resolve()),
        image_size=args.image_size,
        batch_size=args.batch_size,
        max_epochs=args.epochs,
        base_lr=args.base_lr,
    )
    if before not in (None, path.read_text()):
        path.write_text(before)
        sys.exit(f'Error: {path} was begun with other settings or data; give those, or another --out.')
    return path


def run(start: str, seed: int, args: argparse.Namespace) -> dict:
    """Train from a start, or go on where it was interrupted, and test.

    Args:
        start (str): 'random' or the variant of evidence.py whose weights it is to be.
        seed (int): Of new weights and of the order of images.
        args (argparse.Namespace): Command line.

    Returns:
        dict: Figures.
    """
    path = write_config(start, seed, args)
    init_default_scope('mmdet')
    config = Config.fromfile(path)
    work_dir = args.out / 'runs' / path.stem
    config.work_dir = str(work_dir)
    config.experiment_name = f'{path.stem}_{time.time_ns()}'
    config.randomness.seed = seed
    config.train_cfg.val_interval = args.val_interval
    config.resume = (work_dir / 'last_checkpoint').exists()
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        loader.num_workers = args.workers
        loader.persistent_workers = loader.get('persistent_workers', False) and args.workers > 0
    annotations = 'annotations/instances_test.json'
    config.test_dataloader.dataset.update(ann_file=annotations, data_prefix=dict(img='test/'))
    config.test_evaluator.ann_file = f'{args.data.resolve()}/{annotations}'
    runner = ScheduleRunner.from_cfg(config)
    curve = CurveHook(work_dir / 'curve.json')
    runner.register_hook(curve)
    runner.train()
    if [point['epoch'] for point in curve.points][-1:] != [args.epochs]:
        runner.val()  # it was interrupted between its last checkpoint and the end of the validation
    tested = runner.test()
    return dict(
        start=start,
        seed=seed,
        curve=[{key: point[key] for key in ('epoch', *METRICS)} for point in curve.points],
        val={name: curve.points[-1][name] for name in METRICS},
        test={name: 100 * tested[f'coco/{name}_mAP'] for name in METRICS},
        seconds=time.perf_counter() - curve.start,
    )


def load_cells(out: Path) -> list[dict]:
    """Read the figures of all runs in a folder, by start and seed."""
    cells = [json.loads(file.read_text()) for file in (out / 'cells').glob('*.json')]
    return sorted(cells, key=lambda cell: (list(STARTS).index(cell['start']), cell['seed']))


def format_table(cells: list[dict]) -> str:
    """Write figures as a Markdown table: a row for each part and metric, a column for each start."""
    starts = list(dict.fromkeys(cell['start'] for cell in cells))
    rows = []
    for part in ('val', 'test'):
        for metric, heading in METRICS.items():
            values = [[cell[part][metric] for cell in cells if cell['start'] == start] for start in starts]
            rows.append([f'animals6 {part}, {heading}', *map(spread, values)])
    return markdown_table(['', *(STARTS[start] for start in starts)], rows)


def draw_curves(cells: list[dict], path: Path) -> None:
    """Draw box and mask AP of the validation images over epochs: a thin line a run, and their mean."""
    figure, axes = plt.subplots(1, len(METRICS), figsize=(9, 3.6), layout='constrained')
    for axis, (metric, label) in zip(axes, METRICS.items()):
        for number, (start, heading) in enumerate(STARTS.items()):
            runs = [cell['curve'] for cell in cells if cell['start'] == start]
            curves = [[(point['epoch'], point[metric]) for point in points] for points in runs]
            draw_runs(axis, curves, f'C{number}', heading)
        axis.set_xlabel('epoch')
        axis.set_ylabel(f'{label} on val')
        axis.legend()
    with write_whole(path) as partial:
        figure.savefig(partial, dpi=150, format='png')
    plt.close(figure)


def main() -> None:
    args = parse_args()
    needed = [args.data / 'annotations' / f'instances_{part}.json' for part in ('train', 'val', 'test')]
    needed += [
        args.weights / f'{start}_seed{seed}.pth' for start in args.starts if start != 'random' for seed in args.seeds
    ]
    for file in needed:
        if not file.is_file():
            sys.exit(f'Error: there is no file {file}; README.md beside this script says what is needed.')
    settings = {key: getattr(args, key) for key in SETTINGS}
    for cell in load_cells(args.out):
        if cell['settings'] != settings:
            sys.exit(f'Error: {args.out} has runs with {cell["settings"]}; give those, or another --out.')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cells = [
        (args.out / 'cells' / f'{start}_seed{seed}.json', start, seed) for seed in args.seeds for start in args.starts
    ]
    left = [cell for cell in cells if not cell[0].exists()]
    longest = 0.0
    for i, (file, start, seed) in enumerate(left):
        eta = f'about {longest * (len(left) - i) / 60:.0f} minutes' if longest else 'no time known yet'
        print(f'{start}, seed {seed}: run {i + 1} of {len(left)}, {eta}', flush=True)
        figures = run(start, seed, args)
        longest = max(longest, figures['seconds'])
        figures.update(settings=settings, made=machine(device))
        with write_whole(file) as partial:
            partial.write_text(json.dumps(figures, indent=1))
    cells = load_cells(args.out)
    table = format_table(cells)
    print(table)
    with write_whole(args.out / 'results.md') as partial:
        partial.write_text(f'{table}\n')
    draw_curves(cells, args.out / 'results.png')


if __name__ == '__main__':
    main()
