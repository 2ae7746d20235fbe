"""Measure what backbones cost in their pipelines: parameters, multiply-adds, time and memory, in turn and in one run.

python benchmarks/backbone_cost.py NAME=CONFIG ... [--size 1024 --rounds 3 --out FOLDER]

A config is one of mmdet, mmseg or mmpretrain: a file, or a name such as mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py.
The model has random weights. Its input is random images of one size, as a data preprocessor would hand them over (so
neither loading nor preprocessing is measured), each with what there is to learn: eight boxes with rectangular masks, a
map of classes or a label.

- Multiply-adds are those of PyTorch's matrix products, convolutions and attention in the backbone, for one image.
- Inference is the whole model in 'predict' mode, post-processing included. Score thresholds are set to 0, so that
  every detector finds as many boxes as its config allows; otherwise chance would say how many masks are computed.
- A training step is forward and backward of the loss, without the optimiser.

Each model is measured in processes of its own, one for inference and later one for training, and those of all models
are alive together: each round has a turn of every model, so that whatever slows the machine slows them all. Times are
medians over rounds, ratios are taken round by round. Memory is the peak of such a process, weights, gradients and
libraries included, or of its tensors on a GPU.
"""

import argparse
import copy
import json
import multiprocessing
import os
import statistics
import sys
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from signal import Signals

import numpy as np
import torch
import torch.nn as nn
from measuring import draw_bars, figures_table, peak_memory_gib, timed
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.utils import ProgressBar, import_modules_from_strings

from mmconvmae.utils import count_multiply_adds, count_parameters, first_line, write_whole

# What can be measured, and about how long that takes beside the other.
STEPS = dict(forward=1, train=3)
# Heading, key of a row, and how the value is printed
COLUMNS = (
    ('parameters, M', 'parameters', lambda count: f'{count / 1e6:.2f}'),
    ('backbone, M', 'backbone_parameters', lambda count: f'{count / 1e6:.2f}'),
    ('its multiply-adds, G', 'backbone_multiply_adds', lambda count: f'{count / 1e9:.2f}'),
    ('inference, ms / image', 'forward_ms', '{:.0f}'.format),
    ('time / {reference}', 'forward_ratio', '{:.2f}'.format),
    ('memory, GiB', 'forward_peak_gib', '{:.2f}'.format),
    ('of which inference adds', 'forward_added_gib', '{:.2f}'.format),
    ('training step, s', 'train_ms', lambda ms: f'{ms / 1e3:.2f}'),
    ('time / {reference}', 'train_ratio', '{:.2f}'.format),
    ('memory, GiB', 'train_peak_gib', '{:.2f}'.format),
    ('of which a step adds', 'train_added_gib', '{:.2f}'.format),
)


def named_config(text: str) -> tuple[str, str]:
    """Split NAME=CONFIG of the command line."""
    name, _, config = text.partition('=')
    if not (name and config):
        raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=CONFIG')
    return name, config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', nargs='+', type=named_config, metavar='NAME=CONFIG', help='the first is what ratios refer to'
    )
    parser.add_argument(
        '--size', nargs='+', type=int, default=[1024], metavar='PIXELS', help='of images: edge, or height and width'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='some models, such as UPerNet, need 2 to train their batch norm'
    )
    parser.add_argument('--rounds', type=int, default=3, help='timed turns of each model, after one that is not')
    parser.add_argument('--steps', type=int, default=1, help='steps in a turn')
    parser.add_argument('--what', nargs='+', choices=STEPS, default=list(STEPS), help='inference, training or both')
    parser.add_argument(
        '--amp', action='store_true', help="autocast to PyTorch's type for the device; RoIAlign needs a GPU"
    )
    parser.add_argument('--out', type=Path, metavar='FOLDER', help='for backbone_cost.json, .md and .png')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of every config to replace'
    )
    args = parser.parse_args()
    if len(args.size) > 2:
        parser.error('--size takes an edge, or height and width')
    if min(*args.size, args.batch_size, args.rounds, args.steps) < 1:
        parser.error('--size, --batch-size, --rounds and --steps are at least 1')
    if len(dict(args.configs)) < len(args.configs):
        parser.error('two configs have one name')
    args.configs = dict(args.configs)
    args.size = (args.size * 2)[:2]
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return args


def config_path(config: str) -> Path:
    """Find the file of a config.

    mmengine's ``get_config`` knows the libraries by the names of their distributions, and installs from the internet
    what it does not find by that name; here the module says where its configs are.

    Args:
        config (str): A path, or ``package::path``.

    Returns:
        Path: The file, which may be missing.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    package, separator, path = config.partition('::')
    if not separator:
        return Path(config)
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'{package!r} is not installed.')
    return Path(spec.origin).parent / '.mim' / 'configs' / path


def prepare(settings: object) -> None:
    """Make a config's model one that needs no checkpoint, and whose work does not depend on its scores.

    Args:
        settings (object): The model's settings or a part of them, changed in place.
    """
    if isinstance(settings, dict):
        for key in ('init_cfg', 'pretrained'):
            settings.pop(key, None)
        if 'score_thr' in settings:
            settings['score_thr'] = 0.0
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            prepare(value)


def load_config(config: str, options: dict | None) -> Config:
    """Read a config.

    Args:
        config (str): A path, or ``package::path``.
        options (dict, optional): Settings to replace; they have the last word.

    Returns:
        Config: The config, without checkpoints to load.

    Raises:
        ValueError: If it has no model.
        Exception: Whatever else reading it raises.
    """
    config = Config.fromfile(config_path(config))
    if 'model' not in config:
        raise ValueError('There is no `model` in it.')
    prepare(config.model)
    config.merge_from_dict(options or {})
    return config


def detection_sample(model: nn.Module, meta: dict, generator: torch.Generator) -> BaseDataElement:
    """Eight objects of the first class, with edges from an eighth to half of the image's."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = meta['img_shape']
    image = torch.tensor([width, height])
    edges = image * (1 + 3 * torch.rand(8, 2, generator=generator)) / 8
    corners = (image - edges) * torch.rand(8, 2, generator=generator)
    boxes = torch.cat([corners, corners + edges], dim=1)
    masks = np.zeros((8, height, width), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist()):
        mask[top:bottom, left:right] = 1
    objects = InstanceData(
        bboxes=boxes, labels=torch.zeros(8, dtype=torch.long), masks=BitmapMasks(masks, height, width)
    )
    return DetDataSample(metainfo=meta, gt_instances=objects)


def segmentation_sample(model: nn.Module, meta: dict, generator: torch.Generator) -> BaseDataElement:
    """A class for each pixel."""
    from mmseg.structures import SegDataSample

    classes = torch.randint(model.num_classes, (1, *meta['img_shape']), generator=generator)
    return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=classes))


def classification_sample(model: nn.Module, meta: dict, generator: torch.Generator) -> BaseDataElement:
    """The first class."""
    from mmpretrain.structures import DataSample

    return DataSample(metainfo=meta).set_gt_label(0)


# Library, class of its models, and what makes a sample for one of them
KINDS = (
    ('mmdet', 'BaseDetector', detection_sample),
    ('mmseg', 'BaseSegmentor', segmentation_sample),
    ('mmpretrain', 'BaseClassifier', classification_sample),
)


def make_samples(model: nn.Module, batch_size: int, size: tuple[int, int]) -> list[BaseDataElement]:
    """Make up what there is to learn about a batch, in the structures of the model's library.

    Args:
        model (nn.Module): Detector of mmdet, segmentor of mmseg or classifier of mmpretrain.
        batch_size (int): Number of images.
        size (tuple[int, int]): Height and width of images, in pixels.

    Returns:
        list[BaseDataElement]: A sample for each image, the same in every run.

    Raises:
        TypeError: If the model is none of these.
    """
    generator = torch.Generator().manual_seed(0)
    meta = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), tuple(size))
    meta.update(scale_factor=(1.0, 1.0), flip=False)
    for library, base, make_sample in KINDS:
        # A library that building the model has not imported, perhaps because it is not installed, has no part in it.
        models = sys.modules.get(f'{library}.models')
        if models is not None and isinstance(model, getattr(models, base)):
            return [make_sample(model, meta, generator) for _ in range(batch_size)]
    raise TypeError(f'{type(model).__name__} is no detector of mmdet, segmentor of mmseg or classifier of mmpretrain.')


def forward_multiply_adds(module: nn.Module, images: torch.Tensor) -> int:
    """Count the multiply-adds of a forward pass, without computing anything where the module allows that.

    Args:
        module (nn.Module): The module, in eval mode.
        images (Tensor): Its input, of shape (B, C, H, W).

    Returns:
        int: Multiply-adds.
    """
    try:
        return count_multiply_adds(copy.deepcopy(module).to('meta'), images.to('meta'))
    except Exception:  # some modules look at values, or have operators that know no meta device
        return count_multiply_adds(module, images)


class Subject:
    """A model with random weights and images, ready to take steps of one kind.

    Args:
        config (Config): Its config.
        what (str): 'forward' or 'train'.
        args (argparse.Namespace): Command line.

    Raises:
        Exception: Whatever building the model raises.
    """

    def __init__(self, config: Config, what: str, args: argparse.Namespace) -> None:
        self.what, self.args = what, args
        torch.manual_seed(0)
        if 'custom_imports' in config:
            import_modules_from_strings(**config.custom_imports)
        init_default_scope(config.get('default_scope', 'mmengine'))
        self.model = MODELS.build(config.model)
        self.backbone = self.model.backbone
        # Some parameters have no value before. No checkpoint is left in the config that this could load.
        self.model.init_weights()
        self.model.to(args.device)
        self.model.train(what == 'train')
        self.memory_before = peak_memory_gib(args.device)
        self.images = torch.randn(args.batch_size, 3, *args.size, device=args.device)
        self.samples = [sample.to(args.device) for sample in make_samples(self.model, args.batch_size, args.size)]

    def step(self) -> None:
        """Run inference, or forward and backward of the loss."""
        training = self.what == 'train'
        with torch.set_grad_enabled(training):
            with torch.autocast(self.args.device, enabled=self.args.amp):
                outputs = self.model(self.images, self.samples, mode='loss' if training else 'predict')
            if training:
                self.model.parse_losses(outputs)[0].backward()

    def take_turn(self) -> float:
        """Take some steps; milliseconds that each took, in inference for an image."""
        elapsed = 0.0
        for _ in range(self.args.steps):
            elapsed += timed(self.step, self.args.device)
            self.model.zero_grad()
        parts = self.args.steps if self.what == 'train' else self.args.steps * len(self.images)
        return 1e3 * elapsed / parts

    def describe(self) -> dict:
        """Figures of the steps until now and of the model, by the keys of a row."""
        peak = peak_memory_gib(self.args.device)
        figures = {f'{self.what}_peak_gib': peak, f'{self.what}_added_gib': peak - self.memory_before}
        detections = [len(sample.pred_instances) for sample in self.samples if 'pred_instances' in sample]
        if detections:
            figures['detections_per_image'] = statistics.mean(detections)
        self.backbone.eval()
        return dict(
            model=type(self.model).__name__,
            backbone=type(self.backbone).__name__,
            parameters=count_parameters(self.model),
            backbone_parameters=count_parameters(self.backbone),
            backbone_multiply_adds=forward_multiply_adds(self.backbone, self.images[:1]),
            **figures,
        )


def serve(connection: Connection, *subject: object) -> None:
    """Build a subject and answer questions about it, until something goes wrong or the process is ended.

    Args:
        connection (Connection): Brings names of the subject's methods; takes what they return, or why there is nothing.
        *subject: Arguments of :class:`Subject`.
    """
    # What libraries print would break into the progress bar and the table.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    try:
        subject = Subject(*subject)
        while True:
            answer = getattr(subject, connection.recv())()
            connection.send((answer, None))
    except Exception as error:
        connection.send((None, first_line(error)))


class Worker:
    """A process of its own for a subject, which works when it is asked.

    Args:
        name (str): Name of the model, for errors.
        config (Config): See :class:`Subject`.
        what (str): See :class:`Subject`.
        args (argparse.Namespace): Command line.
    """

    def __init__(self, name: str, config: Config, what: str, args: argparse.Namespace) -> None:
        self.name, self.what = name, what
        context = multiprocessing.get_context('spawn')
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=serve, args=(far_end, config, what, args), daemon=True)
        self.process.start()
        far_end.close()  # the connection then breaks when the process ends

    def ask(self, question: str) -> float | dict:
        """Have one of the subject's methods called.

        Args:
            question (str): Its name.

        Returns:
            float | dict: What it returns.

        Raises:
            ValueError: If the subject cannot be built or raises an error, or if its process has ended.
        """
        # A process that has ended may have left word why, which can still be received.
        with suppress(OSError):
            self.connection.send(question)
        try:
            answer, fault = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            fault = f'its process was ended by {Signals(-code).name}' if code < 0 else f'its process ended with {code}'
            if code == -Signals.SIGKILL:
                fault += ', as the system does when memory runs out'
        if fault is not None:
            raise ValueError(f'{self.name} cannot be measured ({self.what}): {fault}')
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()


def read_configs(args: argparse.Namespace) -> dict[str, Config]:
    """Read the configs of the command line.

    Args:
        args (argparse.Namespace): Command line.

    Returns:
        dict[str, Config]: Configs by their names.

    Raises:
        ValueError: If one cannot be read.
    """
    configs = {}
    for name, config in args.configs.items():
        try:
            configs[name] = load_config(config, args.cfg_options)
        except Exception as error:
            raise ValueError(f'The config of {name} cannot be read: {first_line(error)}') from error
    return configs


def measure_steps(what: str, configs: dict[str, Config], args: argparse.Namespace, progress: ProgressBar) -> list[dict]:
    """Measure inference or training of every model.

    Args:
        what (str): 'forward' or 'train'.
        configs (dict[str, Config]): Configs by their names.
        args (argparse.Namespace): Command line.
        progress (ProgressBar): Told of every turn.

    Returns:
        list[dict]: Figures of each, in the order of the configs.

    Raises:
        ValueError: If one cannot be measured.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(name, configs[name], what, args))) for name in configs]
        turns = {worker: [] for worker in workers}
        for _ in range(args.rounds + 1):
            for worker in workers:
                turns[worker].append(worker.ask('take_turn'))
                progress.update(STEPS[what])
        results = [worker.ask('describe') for worker in workers]
    of_first = turns[workers[0]][1:]
    for worker, figures in zip(workers, results):
        times = turns[worker][1:]
        figures[f'{what}_ms'] = statistics.median(times)
        figures[f'{what}_ratio'] = statistics.median(own / other for own, other in zip(times, of_first))
        figures[f'{what}_all_ms'] = times
    return results


def measure(configs: dict[str, Config], args: argparse.Namespace) -> list[dict]:
    """Measure every model.

    Args:
        configs (dict[str, Config]): Configs by their names.
        args (argparse.Namespace): Command line.

    Returns:
        list[dict]: A row of figures for each, in the order of the configs.

    Raises:
        ValueError: If one cannot be measured.
    """
    rows = [dict(name=name, config=args.configs[name]) for name in configs]
    progress = ProgressBar((args.rounds + 1) * len(rows) * sum(STEPS[what] for what in args.what), file=sys.stderr)
    try:
        for what in args.what:
            for row, figures in zip(rows, measure_steps(what, configs, args, progress)):
                row.update(figures)
    finally:
        print(file=sys.stderr)  # ends the line of the progress bar
    return rows


def draw_chart(rows: list[dict], title: str, path: Path) -> None:
    """Draw time and peak memory as bars, of training if that was measured and else of inference.

    Args:
        rows (list[dict]): Figures of each model.
        title (str): Title.
        path (Path): PNG file to write.
    """
    if 'train_ms' in rows[0]:
        panels = {
            's / training step': [row['train_ms'] / 1e3 for row in rows],
            'peak memory of training, GiB': [row['train_peak_gib'] for row in rows],
        }
    else:
        panels = {
            'inference, ms / image': [row['forward_ms'] for row in rows],
            'peak memory of inference, GiB': [row['forward_peak_gib'] for row in rows],
        }
    draw_bars([row['name'] for row in rows], panels, path, title)


def write_results(report: dict, summary: str, table: str, folder: Path) -> None:
    """Write the figures, the table and the chart, each whole or not at all.

    Args:
        report (dict): Conditions, and figures of each model under 'rows'.
        summary (str): Conditions in words.
        table (str): The figures in Markdown.
        folder (Path): Where.

    Raises:
        OSError: If one cannot be written.
    """
    texts = dict(json=json.dumps(report, indent=1), md=f'{summary}\n\n{table}\n')
    for suffix, text in texts.items():
        with write_whole(folder / f'backbone_cost.{suffix}') as path:
            path.write_text(text)
    draw_chart(report['rows'], summary, folder / 'backbone_cost.png')


def main() -> None:
    args = parse_args()
    conditions = dict(
        size=args.size,
        batch_size=args.batch_size,
        rounds=args.rounds,
        steps=args.steps,
        amp=args.amp,
        device=torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU (threads: {torch.get_num_threads()})',
        torch=torch.__version__,
    )
    summary = (
        f'{args.size[0]} x {args.size[1]} pixels, batch size {args.batch_size}, '
        f'{"autocast" if args.amp else "float32"}, {conditions["device"]}, PyTorch {torch.__version__}, '
        f'rounds: {args.rounds}'
    )
    try:
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
        rows = measure(read_configs(args), args)
        table = figures_table(COLUMNS, rows, reference=rows[0]['name'])
        print(f'{summary}\n\n{table}')
        if args.out:
            write_results(dict(**conditions, rows=rows), summary, table, args.out)
    except (OSError, ValueError) as error:
        sys.exit(f'Error: {error}')


if __name__ == '__main__':
    main()
