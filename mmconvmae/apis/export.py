"""Parts of models as graphs that run without our code: made, written, run and compared with what they were made of."""

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.export
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import digit_version, import_modules_from_strings
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from torch import Tensor

from mmconvmae.checkpoint import read_checkpoint
from mmconvmae.models import ConvViT
from mmconvmae.utils import first_line

from .backbone import our_state_dict

PARTS = ('backbone', 'neck', 'whole')
# Modules that a part needs.
MODULES = dict(backbone=('backbone',), neck=('backbone', 'neck'), whole=('backbone', 'neck', 'head', 'decode_head'))
# The oldest PyTorch with torch.export for free sizes and an ONNX exporter that builds on it.
OLDEST_TORCH = '2.6'
# Rows and columns of patches that a graph of free size takes at least: with fewer, a map of twice the total stride may
# have a single position, for which graphs are special.
SMALLEST_GRID = 5
# What an ONNX file holds in itself is limited to 2 GiB.
ONNX_LIMIT = 1.9 * 2**30


class ExportedPart(nn.Module):
    """A part of a model that takes images as they are in files.

    Args:
        model (nn.Module): A ConvViT, or a model of mmpretrain, mmdet or mmseg that has one.
        part (str, optional): What of it.

            - ``'backbone'``: what its ``out_indices`` and ``out_type`` say.
            - ``'neck'``: what the neck gives.
            - ``'whole'``: of a classifier the logits, shape (B, classes); of a segmentor the logits at the size of the
              image, shape (B, classes, H, W).

            Defaults to None: the whole of a classifier or segmentor, a detector up to its neck, and else the backbone.

    Raises:
        ValueError: If there is no such part.
    """

    def __init__(self, model: nn.Module, part: str | None = None) -> None:
        super().__init__()
        is_segmentor = hasattr(model, 'decode_head')
        has_whole = is_segmentor or isinstance(model, BaseClassifier)
        alone = isinstance(model, (ConvViT, BaseSelfSupervisor))
        self.part = part or ('whole' if has_whole else 'backbone' if alone else 'neck')
        backbone = model if isinstance(model, ConvViT) else getattr(model, 'backbone', None)
        if not isinstance(backbone, ConvViT) or backbone.num_frames is not None:
            raise ValueError(
                f'{type(model).__name__} has no ConvViT for images as its backbone, which is what can be exported; '
                'give the config of a model that has one.'
            )
        if self.part == 'whole' and not has_whole:
            raise ValueError(
                f'{type(model).__name__} is no classifier and no segmentor, whose whole can be exported; choose '
                "'backbone' or 'neck' (docs/deployment.md has the way of whole detectors)."
            )
        if self.part == 'neck' and alone:
            raise ValueError(f"{type(model).__name__} has no neck of use without a mask; choose 'backbone'.")
        self.model = model.eval().requires_grad_(False)
        self.resizes = is_segmentor and self.part == 'whole'
        self.in_channels, self.stride, self.img_size = backbone.in_channels, backbone.stride, backbone.img_size
        self.window_size = backbone.stages[2].window_size
        preprocessor = getattr(model, 'data_preprocessor', None)
        mean = getattr(preprocessor, 'mean', None)
        # What images are given as: bytes where the model's own normalisation is known.
        self.dtype = torch.float32 if mean is None else torch.uint8
        # mmcv loads images blue first; a model that leaves them so wants what is red first turned round.
        to_rgb = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
        self.turns = mean is not None and self.in_channels == 3 and not to_rgb
        self.register_buffer('mean', mean)
        self.register_buffer('std', None if mean is None else preprocessor.std)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute.

        Args:
            images (Tensor): Shape (B, C, H, W), H and W multiples of ``stride``: uint8, red first, or, where the model
                does not say how images are normalised, float32 and normalised.

        Returns:
            tuple[Tensor, ...]: One tensor or more, as the part has them.
        """
        x = images
        if self.mean is not None:
            x = (x.flip(1) if self.turns else x).float()
            x = (x - self.mean) / self.std
        if self.part == 'backbone':
            out = getattr(self.model, 'backbone', self.model)(x)
        elif self.part == 'neck':
            out = self.model.extract_feat(x)
        else:
            out = self.model(x)
        if self.resizes:
            out = F.interpolate(out, images.shape[2:], mode='bilinear', align_corners=self.model.align_corners)
        return tuple(out) if isinstance(out, (tuple, list)) else (out,)

    def random_images(self, batch: int, size: Sequence[int], seed: int) -> Tensor:
        """Make up images.

        Args:
            batch (int): How many.
            size (Sequence[int]): Height and width.
            seed (int): Which.

        Returns:
            Tensor: Shape (B, C, H, W), of ``dtype``.
        """
        shape, generator = (batch, self.in_channels, *size), torch.Generator().manual_seed(seed)
        if self.dtype == torch.uint8:
            return torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return torch.randn(shape, generator=generator)


def load_part(
    config: Config, checkpoint: str | os.PathLike, part: str | None = None, source: str = 'The config'
) -> ExportedPart:
    """Build what a config describes and load what a checkpoint has of it.

    Args:
        config (Config): A config of pretraining, of a classifier, detector or segmentor, or of a ConvViT alone.
        checkpoint (str | os.PathLike): Its checkpoint, or one of the authors.
        part (str, optional): See :class:`ExportedPart`. Defaults to None.
        source (str): What errors call the config. Defaults to 'The config'.

    Returns:
        ExportedPart: The part.

    Raises:
        OSError: If the checkpoint is missing.
        ValueError: If the config has no model that can be exported, or the checkpoint does not fit it.
    """
    settings = config.get('model')
    if settings is None:
        raise ValueError(f'{source} has no `model`; give the config that the checkpoint was trained with.')
    settings = settings.copy()
    if config.get('data_preprocessor') is not None and 'backbone' in settings:
        settings.setdefault('data_preprocessor', config.data_preprocessor)
    if 'custom_imports' in config:
        import_modules_from_strings(**config.custom_imports)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    try:
        model = MODELS.build(settings)
    except Exception as error:  # whatever a config can be wrong about
        raise ValueError(f'{source} has no model that can be built ({first_line(error)}).') from error
    exported = ExportedPart(model, part)
    state_dict = our_state_dict(read_checkpoint(checkpoint), checkpoint)
    if isinstance(model, ConvViT):
        state_dict = {
            name.removeprefix('backbone.'): x for name, x in state_dict.items() if name.startswith('backbone.')
        }
        needed, stages = '', 'stages.'
    else:
        needed, stages = tuple(f'{name}.' for name in MODULES[exported.part]), 'backbone.stages.'
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise ValueError(f'{checkpoint} does not fit {source}: {str(error).splitlines()[1].strip()}') from error
    faults = [f'{name} is missing' for name in missing if name.startswith(needed)]
    faults += [f'{name} is left over' for name in unexpected if name.startswith(stages)]
    if faults:
        raise ValueError(
            f'{checkpoint} does not fit {source}: {"; ".join(faults[:3])}{"; ..." if len(faults) > 3 else ""}. Give '
            'the config that it was trained with.'
        )
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporters say about operators that are not in the graph."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def capture(part: ExportedPart, size: Sequence[int], dynamic: bool = False) -> torch.export.ExportedProgram:
    """Capture a part as a graph whose batch is free.

    Args:
        part (ExportedPart): The part.
        size (Sequence[int]): Height and width, in pixels.
        dynamic (bool): Whether height and width are free too, from :data:`SMALLEST_GRID` on. Defaults to False.

    Returns:
        torch.export.ExportedProgram: The graph.

    Raises:
        ValueError: If PyTorch is too old, the stride does not divide the size, or it cannot be free.
    """
    if digit_version(torch.__version__) < digit_version(OLDEST_TORCH):
        raise ValueError(f'Exporting needs PyTorch {OLDEST_TORCH} or later, and {torch.__version__} is installed.')
    if min(size) < 1 or any(edge % part.stride for edge in size):
        raise ValueError(
            f'The size is {" x ".join(map(str, size))}, which the total stride of {part.stride} does not divide; give '
            f'multiples of {part.stride}.'
        )
    if dynamic and part.window_size:
        raise ValueError(
            f'Attention in windows of {part.window_size} tokens has as many windows as the size makes, which a graph '
            'has to know; give a size that is not free.'
        )
    Dim = torch.export.Dim
    free = {0: Dim('batch')}
    if dynamic:
        rows, columns = (Dim(name, min=SMALLEST_GRID) for name in ('rows', 'columns'))
        free.update({2: part.stride * rows, 3: part.stride * columns})
        # Neither square nor usual, so that nothing of such a size is taken for granted.
        size = [max(edge, SMALLEST_GRID * part.stride) + more * part.stride for edge, more in zip(size, (1, 3))]
    images = part.random_images(2, size, seed=0)
    try:
        with _quiet():
            return torch.export.export(part, (images,), dynamic_shapes=(free,), strict=False)
    except Exception as error:  # the exporter's own, of many kinds
        raise ValueError(
            f'This model cannot be captured as a graph{" of any size" if dynamic else ""} ({first_line(error)})'
            f'{"; give a size that is not free." if dynamic else "."}'
        ) from error


def write_torch(program: torch.export.ExportedProgram, path: str | os.PathLike) -> None:
    """Write a graph for ``torch.export.load``.

    Args:
        program (torch.export.ExportedProgram): The graph.
        path (str | os.PathLike): The file.
    """
    with open(path, 'wb') as file, _quiet():
        torch.export.save(program, file)


def write_onnx(program: torch.export.ExportedProgram, path: str | os.PathLike) -> None:
    """Write a graph in ONNX format.

    Args:
        program (torch.export.ExportedProgram): The graph.
        path (str | os.PathLike): The file.

    Raises:
        ValueError: If a library is missing, the model is too large for the format, or has an operator that it has not.
    """
    need('onnx', 'onnxscript')
    size = sum(x.numel() * x.element_size() for x in program.state_dict.values())
    if size > ONNX_LIMIT:
        raise ValueError(
            f'The parameters take {size / 2**30:.1f} GiB, and an ONNX file holds 2; take the torch-export format.'
        )
    count = len(program.graph_signature.user_outputs)
    names = ['output'] if count == 1 else [f'output{i}' for i in range(count)]
    try:
        with _quiet():
            onnx_program = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=['images'], output_names=names
            )
            onnx_program.save(path, external_data=False)
    except Exception as error:
        raise ValueError(f'ONNX cannot hold this graph ({first_line(error)}).') from error


def need(*modules: str) -> None:
    """Make sure that libraries are there.

    Args:
        *modules (str): Their modules.

    Raises:
        ValueError: If one is not.
    """
    for module in modules:
        try:
            __import__(module)
        except ImportError as error:
            raise ValueError(
                f'{module} is not installed; pip install -r requirements/deployment.txt brings what ONNX needs.'
            ) from error


def write_int8(source: str | os.PathLike, path: str | os.PathLike, calibration: Sequence[Tensor] = ()) -> None:
    """Write an ONNX file whose matrix products with weights are of 8 bits, by ONNX Runtime's quantiser.

    Everything else stays float32: depthwise convolutions, patch embeddings of more than a matrix, norms, softmax and
    the products of queries, keys and values.

    Args:
        source (str | os.PathLike): An ONNX file of float32.
        path (str | os.PathLike): The file to write.
        calibration (Sequence[Tensor]): Batches of images, whose activations fix the ranges. Defaults to (): each
            activation has the range that it has at that moment.

    Raises:
        ValueError: If ONNX Runtime is missing.
    """
    need('onnxruntime', 'onnx')
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static, shape_inference

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict | None:
            batch = next(self.batches, None)
            return batch if batch is None else dict(images=batch.numpy())

    # Weights of 7 bits: with 8, CPUs without VNNI overflow in between.
    settings = dict(op_types_to_quantize=['MatMul', 'Gemm'], per_channel=True, reduce_range=True)
    prepared = Path(f'{path}.prepared')
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # hints at what has just been done
        shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if calibration:
            quantize_static(prepared, path, Reader(), extra_options=dict(MatMulConstBOnly=True), **settings)
        else:
            quantize_dynamic(prepared, path, **settings)
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)


def open_onnx(path: str | os.PathLike, threads: int = 0) -> Callable[[Tensor], list[Tensor]]:
    """Open an ONNX file with ONNX Runtime, on the CPU.

    Args:
        path (str | os.PathLike): The file.
        threads (int): How many threads compute. Defaults to 0: as many as there are cores.

    Returns:
        Callable[[Tensor], list[Tensor]]: Gives the outputs for images.

    Raises:
        ValueError: If ONNX Runtime is missing, or cannot run the file.
    """
    need('onnxruntime')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:
        raise ValueError(f'ONNX Runtime cannot run {path} ({first_line(error)}).') from error
    (name,) = (x.name for x in session.get_inputs())
    return lambda images: [torch.from_numpy(np.asarray(x)) for x in session.run(None, {name: images.numpy()})]


def open_torch(path: str | os.PathLike) -> Callable[[Tensor], list[Tensor]]:
    """Open a graph that :func:`write_torch` wrote.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        Callable[[Tensor], list[Tensor]]: Gives the outputs for images.
    """
    with _quiet():
        graph = torch.export.load(io.BytesIO(Path(path).read_bytes())).module()
    return lambda images: list(graph(images))


@torch.no_grad()
def compare(part: ExportedPart, run: Callable[[Tensor], list[Tensor]], images: Tensor) -> tuple[float, float]:
    """Tell how far a graph is from what it was made of.

    Args:
        part (ExportedPart): What it was made of.
        run (Callable): Runs the graph.
        images (Tensor): Images.

    Returns:
        tuple[float, float]: The largest difference, and the same as a share of the largest value of that output.

    Raises:
        ValueError: If the graph does not run with such images, or gives outputs of other shapes.
    """
    shape = ' x '.join(map(str, images.shape))
    try:
        outputs = run(images)
    except Exception as error:
        raise ValueError(f'The graph does not run with images of {shape} ({first_line(error)}).') from error
    expected = part(images)
    if [x.shape for x in outputs] != [x.shape for x in expected]:
        raise ValueError(f'The graph gives other shapes for images of {shape} than the model.')
    differences = [(x - y).abs().max().item() for x, y in zip(outputs, expected)]
    shares = [difference / max(x.abs().max().item(), 1e-12) for difference, x in zip(differences, expected)]
    return tuple(torch.tensor(values).max().item() for values in (differences, shares))  # NaN, if one is
