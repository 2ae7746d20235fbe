"""Measure what backbones cost in their pipelines: parameters, multiply-adds, time and memory, in turn and in one run.

python tools/analysis_tools/backbone_cost.py NAME=CONFIG ... [--size 1024 --rounds 3 --out FOLDER]

A config is one of mmdet, mmseg or mmpretrain: a file, or a name such as mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py.
The model has random weights. Its input is random images of one size, as a data preprocessor would hand them over (so
neither loading nor preprocessing is measured), each with what there is to learn: eight boxes with rectangular masks, a
map of classes or a label.

- Multiply-adds are those of PyTorch's matrix products, convolutions and attention in the backbone, for one image.
- Inference is the whole model in 'predict' mode, post-processing included. Score thresholds are set to 0, so that
  every detector finds as many boxes as its config allows; otherwise chance would say how many masks are computed.
- A training step is forward and backward of the loss, without the optimiser.

Each model is measured in processes of its own, one for inference and one for training. Each round has a turn of every
model, so that whatever slows the machine slows them all. Times are medians over rounds, ratios are taken round by
round. Memory is the peak of such a process, or of its tensors on a GPU.
"""

import argparse
import copy
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from signal import Signals

import matplotlib
import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.utils import ProgressBar, import_modules_from_strings
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

matplotlib.use('Agg')
import matplotlib.pyplot as plt

# What can be measured, and about how long that takes beside the other.
STEPS = dict(forward=1, train=3)
# Heading, key of a row, and how the value is printed.
COLUMNS = (
    ('parameters, M', 'parameters', lambda n: f'{n / 1e6:.2f}'),
    ('backbone, M', 'backbone_parameters', lambda n: f'{n / 1e6:.2f}'),
    ('multiply-adds of the backbone, G', 'backbone_multiply_adds', lambda n: f'{n / 1e9:.2f}'),
    ('inference, ms / image', 'forward_ms_per_image', lambda ms: f'{ms:.1f}'),
    ('memory, GiB', 'forward_peak_gib', lambda gib: f'{gib:.2f}'),
    ('of which inference adds', 'forward_added_gib', lambda gib: f'{gib:.2f}'),
    ('training step, s', 'train_ms_per_step', lambda ms: f'{ms / 1e3:.3f}'),
    ('step / {first}', 'train_ratio', lambda ratio: f'{ratio:.2f}'),
    ('memory, GiB', 'train_peak_gib', lambda gib: f'{gib:.2f}'),
    ('of which a step adds', 'train_added_gib', lambda gib: f'{gib:.2f}'),
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
    parser.add_argument('--what', nargs='+', choices=STEPS, default=list(STEPS))
    parser.add_argument('--amp', action='store_true', help="autocast to PyTorch's default type for the device")
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
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
    args.size = (args.size * 2)[:2] if len(args.size) == 1 else args.size
    return args


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with a model into one sentence that names it.

    Args:
        name (str): Name of the model.

    Raises:
        ValueError: In place of any exception; configs and models may raise what they like.
    """
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or ['']
        raise ValueError(f'{name} cannot be measured: {type(error).__name__}: {lines[0]}') from error


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
        options (dict, optional): Settings to replace.

    Returns:
        Config: The config, without checkpoints to load.

    Raises:
        ValueError: If it has no model.
        Exception: Whatever else reading it raises.
    """
    config = Config.fromfile(config_path(config))
    config.merge_from_dict(options or {})
    if 'model' not in config:
        raise ValueError('The config has no `model`.')
    prepare(config.model)
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
        # A library that building the model has not imported has no part in it.
        if library in sys.modules and isinstance(model, getattr(import_module(f'{library}.models'), base)):
            return [make_sample(model, meta, generator) for _ in range(batch_size)]
    raise TypeError(
        f'{type(model).__name__} is no detector of mmdet, segmentor of mmseg or classifier of mmpretrain.'
    )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_multiply_adds(module: nn.Module, images: torch.Tensor) -> int:
    """Count the multiply-adds of a forward pass.

    Args:
        module (nn.Module): The module, in eval mode.
        images (Tensor): Its input.

    Returns:
        int: Multiply-adds.
    """

    def count(module: nn.Module, images: torch.Tensor) -> int:
        # of attention only the plain form is counted on every device
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            module(images)
        return counter.get_total_flops() // 2

    try:
        return count(copy.deepcopy(module).to('meta'), images.to('meta'))
    except Exception:  # some modules look at values, or have operators that know no meta device
        return count(module, images)


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
        torch.manual_seed(0)
        if 'custom_imports' in config:
            import_modules_from_strings(**config.custom_imports)
        init_default_scope(config.get('default_scope', 'mmengine'))
        self.model = MODELS.build(config.model)
        # Some parameters have no value before; no checkpoint is left that this could load.
        self.model.init_weights()
        self.model = self.model.to(args.device).train(what == 'train')
        self.what, self.args = what, args
        self.before = self.memory_gib()
        self.images = torch.randn(args.batch_size, 3, *args.size, device=args.device)
        self.samples = [sample.to(args.device) for sample in make_samples(self.model, args.batch_size, args.size)]

    def memory_gib(self) -> float:
        """Peak memory until now, in GiB: of tensors on a GPU, or of this process on a CPU."""
        if self.images_on_gpu:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
