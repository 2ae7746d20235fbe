"""Evidence on photographs: what pretraining is worth, and whether the paper's ablations come out in its order.

python benchmarks/evidence/evidence.py DATA [--variants NAME ... --seeds 0 1 2 --out FOLDER]

DATA has the folders flowers5 (train/CLASS, val/CLASS), camvid11 (images and annotations, each with training, validation
and test) and others with photographs that have no labels, by default animals6/train and coco_mini/train2017.

A cell is a variant and a seed; variants.py has the variants. Each is pretrained on all training images without their
labels: forms of ConvMAE by the models of the configs in configs/, made small, and rivals by mmpretrain's. Then

- features: a linear probe and nearest neighbours judge those of flowers5,
- finetuning: training on flowers5 begins from its weights, with all labels and with a tenth of them,
- segmentation: for random weights, the paper's form and rivals, training on camvid11 does.

Forms of ConvMAE take the same number of steps, rivals as many as keep the device busy for as long as those of the
paper's form do. How long a step keeps it busy is measured before the first cell, on a GPU as the sum of the times of
its kernels, which waiting for Python is not in; --minutes 0 does only that. OUT/steps.json has it.

The figure is that after the last step: nothing is chosen by it. A cell is written after each of these tasks, and a task
or a pretraining that is in --out is not done again; several processes may share --out with different --seeds or
--variants. Everything is in the memory of the device, crops are made there, and on a GPU each step is recorded once and
replayed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn as nn
import torch.nn.functional as F
from images import Canvases, centre, load_canvases, load_classes, load_masks, random_grid, sample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import set_random_seed
from tables import RIVALS, write_tables
from template import copy_template
from torch import Tensor
from training import DivergedError, Training, announce, autocast, busy_seconds, layer_groups, machine
from variants import SEGMENTED, VARIANTS

from mmconvmae.datasets import find_images
from mmconvmae.models import ConvViT
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_parameters, write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'benchmarks'), str(ROOT / 'tools' / 'analysis_tools')]
from equal_seconds import NEIGHBORS, OTHER_LOSSES, probe  # noqa: E402
from knn import vote  # noqa: E402

# What cells in one folder have in common, and which of it pretraining depends on.
PRETRAINING = ('arch', 'size', 'steps', 'batch_size', 'lr', 'more_images')
SETTINGS = (*PRETRAINING, 'finetuning_epochs', 'finetuning_steps', 'segmentation_steps')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--more-images', nargs='+', default=['animals6/train', 'coco_mini/train2017'], metavar='FOLDER')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--arch', choices=ConvViT.arch_zoo, default='tiny')
    parser.add_argument('--size', type=int, default=128, help='edge of the images, a multiple of 16')
    parser.add_argument('--steps', type=int, default=4000, help='of pretraining')
    parser.add_argument('--batch-size', type=int, default=256, help='of pretraining')
    parser.add_argument('--lr', type=float, default=1e-3, help='of pretraining')
    parser.add_argument('--finetuning-epochs', type=int, default=100)
    parser.add_argument('--finetuning-steps', type=int, default=1000, help='at least, for few labels')
    parser.add_argument('--segmentation-steps', type=int, default=3000)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'evidence'))
    parser.add_argument('--minutes', type=float, help='begin no cell that would not end within this time')
    return parser.parse_args()


class Cell:
    """A variant and a seed.

    Args:
        variant (str): Which.
        seed (int): Of weights, crops, masks and the choice of labels.
        data (Data): The images.
        args (argparse.Namespace): Command line.
    """

    def __init__(self, variant: str, seed: int, data: 'Data', args: argparse.Namespace) -> None:
        self.variant, self.seed, self.data, self.args = variant, seed, data, args
        self.parts = VARIANTS[variant]
        self.weights = None

    def say(self, what: str) -> Callable[[int, float, float], None]:
        """Gives a function that says how a training goes."""
        return announce(f'{self.variant}, seed {self.seed}: {what}')

    def watch(self, what: str, judge: Callable[[], float], curve: list[tuple[int, float]]) -> Callable:
        """Say the loss now and then, and add what the model can do then to its learning curve."""
        say = self.say(what)

        def look(step: int, loss: float, left: float) -> None:
            say(step, loss, left)
            curve.append((step, judge()))

        return look

    def run(self, tasks: list[str], steps: int) -> Iterator[tuple[str, dict]]:
        """Pretrain and do tasks.

        Args:
            tasks (list[str]): Some of :data:`TASKS`.
            steps (int): Of pretraining.

        Yields:
            tuple[str, dict]: 'pretraining' or a task, and its figures, with the seconds and the machine it took.
        """
        if self.parts.model:
            yield 'pretraining', self.pretrain(steps)
        for task in tasks:
            start = time.perf_counter()
            figures = TASKS[task](self)
            yield task, dict(figures, seconds=time.perf_counter() - start, made=machine(self.args.device))

    def pretraining(self, steps: int) -> tuple[nn.Module, Training]:
        """Build the model to pretrain, and its training for a number of steps."""
        set_random_seed(self.seed)
        args, canvases = self.args, self.data.unlabelled
        model = MODELS.build(self.parts.model(args))
        model.init_weights()
        model.to(args.device).train()

        def loss() -> Tensor:
            ids = torch.randint(len(canvases.images), (args.batch_size,), device=args.device)
            grid = random_grid(canvases.ratios[ids], args.size, (0.2, 1.0), 4 / 3)
            images = sample(canvases.images[ids], grid)
            return model.loss(images, None)['loss']

        groups = layer_groups(model, args.lr, 1.0, 0.05)
        return model, Training(groups, loss, steps, args.device, (0.9, 0.95), self.parts.recordable)

    def pretrain(self, steps: int) -> dict:
        """Pretrain, and keep the weights of the backbone; or read them, where an earlier run has got that far.

        Args:
            steps (int): How many.

        Returns:
            dict: Steps, the loss of the held-out images where it compares, and the seconds and the machine it took.
        """
        file = self.args.out / 'weights' / f'{self.variant}_seed{self.seed}.pth'
        settings = dict({key: getattr(self.args, key) for key in PRETRAINING}, steps=steps)
        if file.exists():
            saved = torch.load(file, weights_only=True)
            if saved['settings'] == settings:
                self.weights = {name.removeprefix('backbone.'): value for name, value in saved['state_dict'].items()}
                return saved['figures']
            sys.exit(f'Error: {file} was pretrained with {saved["settings"]}; give those, or another --out.')
        model, training = self.pretraining(steps)
        seconds = training.run(self.say('pretraining'))
        figures = dict(pretraining_steps=steps, seconds=seconds, made=machine(self.args.device))
        if self.variant not in OTHER_LOSSES:
            torch.manual_seed(0)  # of the masks, the same for all
            held_out = centre(self.data.flowers['val'], self.args.size)
            with torch.no_grad():
                figures['held_out_loss'] = model.loss(held_out, None)['loss'].item()
        self.weights = {name: value.cpu() for name, value in model.backbone.state_dict().items()}
        state = {f'backbone.{name}': value for name, value in self.weights.items()}
        with write_whole(file) as path:
            torch.save(dict(state_dict=state, figures=figures, settings=settings), path)
        return figures

    def build_backbone(self, settings: dict) -> nn.Module:
        """Build the backbone with some settings, and give it what was pretrained."""
        backbone = MODELS.build(dict(self.parts.backbone(self.args), **settings))
        backbone.init_weights()
        if self.weights is not None:
            missing, unexpected = backbone.load_state_dict(self.weights, strict=False)
            # Norms of the outputs are new; MAE's last norm is not below a classifier, and SimMIM's mask token nowhere.
            missing = [name for name in missing if not name.startswith(('norm', 'ln'))]
            unexpected = [name for name in unexpected if not name.startswith(('ln1', 'mask_token'))]
            if missing or unexpected:
                raise ValueError(f'The weights do not fit: {missing} are missing, and {unexpected} have no place.')
        return backbone.to(self.args.device)

    @torch.no_grad()
    def judge_features(self) -> dict:
        """Linear probe and nearest neighbours on flowers5, in per cent."""
        set_random_seed(self.seed)
        backbone = self.build_backbone(self.parts.featmap)
        backbone.eval()  # of mmpretrain's backbones it gives nothing back
        parts = []
        for part in ('train', 'val'):
            batches = centre(self.data.flowers[part], self.args.size).split(256)
            parts.append(torch.cat([backbone(batch)[-1].mean((2, 3)) for batch in batches]).double())
        mean, deviation = parts[0].mean(0), parts[0].std(0).clamp(min=1e-12)
        train, val = ((part - mean) / deviation for part in parts)
        labels, expected = (self.data.flowers[part].labels for part in ('train', 'val'))
        with torch.enable_grad():
            classes, _ = probe(train, labels, val)
        nearest = vote(train, labels, val, NEIGHBORS, 0.07)
        found = dict(probe=classes, knn=nearest)
        expected = expected.cpu()
        return {name: 100 * (classes.cpu() == expected).double().mean().item() for name, classes in found.items()}

    def finetuning_template(self) -> Config:
        """The template for own labels, whose learning rates depend on what it begins with."""
        checkpoint = None if self.weights is None else 'pretrained.pth'
        with TemporaryDirectory() as folder:
            return Config.fromfile(copy_template('classify', Path(folder, 'classify.py'), checkpoint=checkpoint))

    def finetune(self) -> dict:
        """Finetune on flowers5, with all labels and with a tenth of them."""
        rate = self.finetuning_template().base_lr
        return dict(
            finetuning_lr=rate,
            **self.finetune_on('finetuning', 1.0),
            **self.finetune_on('finetuning_tenth', 0.1),
        )

    def finetune_on(self, name: str, share: float) -> dict:
        """Finetune on a share of the labels of flowers5.

        Args:
            name (str): Of the figure.
            share (float): Share of the images of each class.

        Returns:
            dict: Accuracy on the validation images after the last step, in per cent, None if the loss did not stay
            finite, and the learning curve: pairs of step and accuracy.
        """
        set_random_seed(self.seed)
        args, flowers = self.args, self.data.flowers['train']
        template = self.finetuning_template()
        generator = torch.Generator().manual_seed(self.seed)
        chosen = []
        for label in range(int(flowers.labels.max()) + 1):
            ids = (flowers.labels == label).nonzero().flatten().cpu()
            chosen.append(ids[torch.randperm(len(ids), generator=generator)[: max(1, round(share * len(ids)))]])
        canvases = flowers.take(torch.cat(chosen).to(args.device))
        batch = template.batch_size
        steps = max(args.finetuning_steps, args.finetuning_epochs * len(canvases.images) // batch)

        backbone = self.build_backbone(self.parts.classifier)

        def features(images: Tensor) -> Tensor:
            x = backbone(images)[-1]
            return x if x.ndim == 2 else x.mean((2, 3))

        with torch.no_grad():
            width = features(torch.zeros(2, 3, args.size, args.size, device=args.device)).shape[1]
        head = MODELS.build(dict(template.model.head, in_channels=width, num_classes=len(chosen)))
        head.init_weights()
        model = nn.ModuleDict(dict(backbone=backbone, head=head.to(args.device))).train()

        def loss() -> Tensor:
            ids = torch.randint(len(canvases.images), (batch,), device=args.device)
            grid = random_grid(canvases.ratios[ids], args.size, (0.25, 1.0), 4 / 3)
            scores = head.fc(features(sample(canvases.images[ids], grid)))
            smoothing = template.model.head.loss.label_smooth_val
            return F.cross_entropy(scores.float(), canvases.labels[ids], label_smoothing=smoothing)

        decay = template.optim_wrapper.paramwise_cfg.layer_decay_rate
        groups = layer_groups(model, template.base_lr, decay, 0.05)
        what = f'finetuning on {share:.0%} of the labels'
        val, curve = self.data.flowers['val'], []

        @torch.no_grad()
        def accuracy() -> float:
            model.eval()
            batches = centre(val, args.size).split(256)
            classes = torch.cat([head.fc(features(images)).argmax(1) for images in batches])
            model.train()
            return 100 * (classes == val.labels).double().mean().item()

        try:
            training = Training(groups, loss, steps, args.device)
            training.run(self.watch(what, accuracy, curve))
        except DivergedError as error:
            print(f'{self.variant}, seed {self.seed}: {what}: {error}', flush=True)
            return {name: None, f'{name}_curve': curve}
        return {name: curve[-1][1], f'{name}_curve': curve}

    def segment(self) -> dict:
        """Segment camvid11.

        Returns:
            dict: mIoU on validation and test after the last step, in per cent, None if the loss did not stay finite,
            the learning curve, pairs of step and mIoU on validation, and the layer decay, which depends on what it
            begins with.
        """
        set_random_seed(self.seed)
        args, streets = self.args, self.data.streets['training']
        num_classes, size = 11, args.size * 3 // 2
        template = Config.fromfile(ROOT / 'configs' / 'own_images' / 'segment.py')
        backbone = self.build_backbone(self.parts.pyramid)
        with DefaultScope.overwrite_default_scope('mmseg'):
            neck = MODELS.build(self.parts.neck).to(args.device) if self.parts.neck else nn.Identity()
        with torch.no_grad():
            maps = nn.Sequential(backbone, neck).eval()(torch.zeros(1, 3, size, size, device=args.device))
        widths = [x.shape[1] for x in maps]
        head = dict(template.model.decode_head, in_channels=widths, num_classes=num_classes, channels=128)
        with DefaultScope.overwrite_default_scope('mmseg'):
            head = MODELS.build(head)
        model = nn.ModuleDict(dict(backbone=backbone, neck=neck, head=head.to(args.device))).train()
        batch = 2 * template.batch_size

        def loss() -> Tensor:
            ids = torch.randint(len(streets.images), (batch,), device=args.device)
            grid = random_grid(streets.ratios[ids], size, (0.15, 0.75), 1.2)
            scores = head(neck(backbone(sample(streets.images[ids], grid))))
            labels = F.grid_sample(streets.labels[ids].float(), grid, mode='nearest', align_corners=False)[:, 0].long()
            scores = F.interpolate(scores.float(), size=size, mode='bilinear', align_corners=False)
            return F.cross_entropy(scores, labels, ignore_index=255)

        decay = 1.0 if self.weights is None else template.layer_decay
        groups = layer_groups(model, 5e-4, decay, 0.05)
        curve = []

        def judge(part: str) -> float:
            model.eval()
            found = self.mean_iou(model, self.data.streets[part], num_classes)
            model.train()
            return found

        training = Training(groups, loss, args.segmentation_steps, args.device)
        try:
            training.run(self.watch('segmentation', partial(judge, 'validation'), curve))
            found = dict(miou_validation=curve[-1][1], miou_test=judge('test'))
        except DivergedError as error:
            print(f'{self.variant}, seed {self.seed}: segmentation: {error}', flush=True)
            found = dict(miou_validation=None, miou_test=None)
        return dict(segmentation_layer_decay=decay, segmentation_curve=curve, **found)

    @torch.no_grad()
    def mean_iou(self, model: nn.ModuleDict, streets: Canvases, num_classes: int) -> float:
        """Mean intersection over union of whole images, compared at the size of the labels, in per cent."""
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=self.args.device)
        edge = self.args.size * 2  # of the shorter edge, about as large as in the crops of training
        for i in range(0, len(streets.images), 16):
            part = streets.take(torch.arange(i, min(i + 16, len(streets.images)), device=self.args.device))
            width = round(edge * part.ratios[0].item() / 16) * 16
            theta = torch.eye(2, 3, device=self.args.device).expand(len(part.images), -1, -1)
            grid = F.affine_grid(theta, (len(part.images), 1, edge, width), align_corners=False)
            with autocast(self.args.device):
                scores = model['head'](model['neck'](model['backbone'](sample(part.images, grid))))
            scores = F.interpolate(scores.float(), size=part.labels.shape[2:], mode='bilinear', align_corners=False)
            found, expected = scores.argmax(1).flatten(), part.labels.flatten().long()
            counted = expected != 255
            pairs = expected[counted] * num_classes + found[counted]
            matrix += torch.bincount(pairs, minlength=num_classes**2).view_as(matrix)
        both = matrix.diagonal()
        return 100 * (both / (matrix.sum(0) + matrix.sum(1) - both)).nanmean().item()


TASKS = dict(features=Cell.judge_features, finetuning=Cell.finetune, segmentation=Cell.segment)


class Data:
    """All images, in the memory of the device."""

    def __init__(self, args: argparse.Namespace) -> None:
        edge = args.size * 3 // 2
        self.flowers = {
            part: load_classes(args.data / 'flowers5' / part, edge, args.device) for part in ('train', 'val')
        }
        self.streets = {
            part: load_masks(args.data / 'camvid11', part, 2 * args.size, args.device)
            for part in ('training', 'validation', 'test')
        }
        folders = ['camvid11/images/training', *args.more_images]
        paths = [args.data / folder / name for folder in folders for name in sorted(find_images(args.data / folder)[0])]
        others, train = load_canvases(paths, edge, args.device), self.flowers['train']
        self.unlabelled = Canvases(torch.cat([train.images, others.images]), torch.cat([train.ratios, others.ratios]))


class CellFile:
    """What is known of a cell, in a file.

    Args:
        out (Path): What was given as --out.
        variant (str): Which.
        seed (int): Which.
        settings (dict): Those of all cells.
    """

    def __init__(self, out: Path, variant: str, seed: int, settings: dict) -> None:
        self.variant, self.seed = variant, seed
        self.file = out / 'cells' / f'{variant}_seed{seed}.json'
        self.figures = dict(variant=variant, seed=seed, seconds={}, made={}, settings=settings)
        self.read()

    def read(self) -> None:
        """Read what is in the file, if there is one."""
        if self.file.exists():
            self.figures = json.loads(self.file.read_text())

    def __str__(self) -> str:
        return f'{self.variant}, seed {self.seed}'

    def left(self, tasks: list[str]) -> list[str]:
        """Those of some tasks that are to be done and are not done yet."""
        possible = [task for task in tasks if task != 'segmentation' or self.variant in SEGMENTED]
        return [task for task in possible if task not in self.figures['made']]

    def add(self, task: str, figures: dict) -> None:
        """Say the figures of a task and what it took, and write them beside those that are there by now."""
        self.read()
        for key in ('seconds', 'made'):
            self.figures[key][task] = figures.pop(key)
        self.figures.update(figures)
        numbers = {key: round(value, 4) for key, value in figures.items() if isinstance(value, float)}
        print(f'{self}: {task}: {numbers}', flush=True)
        with write_whole(self.file) as path:
            path.write_text(json.dumps(self.figures, indent=1))


def rival_steps(data: Data, args: argparse.Namespace) -> dict[str, int]:
    """Steps of rivals that keep the device busy for as long as those of the paper's form.

    Args:
        data (Data): The images.
        args (argparse.Namespace): Command line.

    Returns:
        dict[str, int]: Steps by variant; what takes a step's time is measured where OUT/steps.json is not there.

    Raises:
        SystemExit: If OUT/steps.json was measured with other settings.
    """
    file, settings = args.out / 'steps.json', dict(arch=args.arch, size=args.size, batch_size=args.batch_size)
    if not file.exists():
        seconds = {}
        for name in ('paper', *RIVALS):
            seconds[name] = busy_seconds(Cell(name, 0, data, args).pretraining(args.steps)[1])
            print(f'A step of {name} keeps the device busy for {1e3 * seconds[name]:.1f} ms.', flush=True)
        parameters = {name: count_parameters(MODELS.build(VARIANTS[name].backbone(args))) for name in seconds}
        with write_whole(file) as path:
            path.write_text(json.dumps(dict(settings=settings, seconds=seconds, parameters=parameters), indent=1))
    found = json.loads(file.read_text())
    if found['settings'] != settings:
        sys.exit(f'Error: {file} was measured with {found["settings"]}; give those, or another --out.')
    seconds = found['seconds']
    return {name: round(args.steps * seconds['paper'] / seconds[name]) for name in RIVALS}


def main() -> None:
    args = parse_args()
    if set(RIVALS) & set(args.variants) and (args.arch != 'tiny' or args.size % 32):
        sys.exit('Error: rivals need --arch tiny and a --size that 32 divides; give those, or leave rivals out.')
    for folder in ('flowers5/train', 'flowers5/val', 'camvid11/images', *args.more_images):
        if not (args.data / folder).is_dir():
            sys.exit(
                f'Error: there is no folder {args.data / folder}; README.md beside this script says what DATA has.'
            )
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('WARNING')
    start = time.perf_counter()
    settings = {key: getattr(args, key) for key in SETTINGS}
    for file in (args.out / 'cells').glob('*.json'):
        if (found := json.loads(file.read_text())['settings']) != settings:
            sys.exit(f'Error: {file} has figures for {found}; give those settings, or another --out.')
    cells = [CellFile(args.out, variant, seed, settings) for seed in args.seeds for variant in args.variants]
    left = [cell for cell in cells if cell.left(args.tasks)]
    data, longest = Data(args) if left else None, 0.0
    steps = rival_steps(data, args) if set(RIVALS) & {cell.variant for cell in left} else {}
    diverged = []
    for i, cell in enumerate(left):
        begin = time.perf_counter()
        if args.minutes is not None and begin - start + longest > 60 * args.minutes:
            print(f'Cells left for another time: {len(left) - i}.')
            break
        eta = f'about {longest * (len(left) - i) / 60:.0f} minutes' if longest else 'no time known yet'
        print(f'{cell}: cell {i + 1} of {len(left)}, {eta}', flush=True)
        number = steps.get(cell.variant, args.steps)
        try:
            for task, figures in Cell(cell.variant, cell.seed, data, args).run(cell.left(args.tasks), number):
                cell.add(task, figures)
        except DivergedError as error:
            diverged.append(str(cell))
            print(f'{cell}: pretraining: {error}', flush=True)
            continue
        longest = max(longest, time.perf_counter() - begin)
    write_tables(args.out)
    if diverged:
        sys.exit(f'Error: pretraining diverged in {"; ".join(diverged)}: there are no figures; lower --lr.')


if __name__ == '__main__':
    main()
