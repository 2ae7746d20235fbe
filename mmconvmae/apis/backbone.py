import os
from dataclasses import dataclass
from inspect import signature

import torch
from mmengine.config import Config
from torch import Tensor

from mmconvmae.checkpoint import (
    config_of,
    from_official,
    infer_model,
    is_state_dict,
    read_checkpoint,
    use_todays_backbone_names,
)
from mmconvmae.datasets import DenseClip, LoadClip, LoadWholeImage
from mmconvmae.models import ClipDataPreprocessor, ConvViT, ImageDataPreprocessor, VideoConvViT
from mmconvmae.models.backbones.convvit_arch import parse_arch
from mmconvmae.utils import find_types

# What of a backbone's config decides which parameters it has and what it computes of an image.
ARCHITECTURE = (
    'arch',
    'img_size',
    'pretrain_img_size',
    'patch_sizes',
    'in_channels',
    'kernel_size',
    'window_size',
    'global_attn_indexes',
    'pad_windows',
    'rel_pos',
    'layer_scale_init_value',
    # of clips
    'num_frames',
    'tubelet_size',
    'temporal_kernel_size',
)
BACKBONES = ('ConvViT', 'ConvMAEViT', 'VideoConvViT', 'VideoConvMAEViT')
IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone with the weights of a checkpoint, and how its images or videos are prepared.

    Args:
        backbone (ConvViT): In evaluation mode; for clips a :class:`VideoConvViT`.
        data_preprocessor (ImageDataPreprocessor | ClipDataPreprocessor): Takes images or clips as they are loaded.
        loader (LoadWholeImage | LoadClip): Loads an image, or the middle clip of a video.
        origin (str): Where the architecture, and mean and deviation, come from, in two sentences.
    """

    backbone: ConvViT
    data_preprocessor: ImageDataPreprocessor | ClipDataPreprocessor
    loader: LoadWholeImage | LoadClip
    origin: str

    def to(self, device: str | torch.device) -> 'LoadedBackbone':
        """Move backbone and preprocessor to a device.

        Args:
            device (str | torch.device): The device.

        Returns:
            LoadedBackbone: This one.

        Raises:
            ValueError: If there is no such device.
        """
        try:
            self.backbone.to(device)
            self.data_preprocessor.to(device)
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f'The device {device} cannot be used ({reason}); choose another.') from error
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            images (Tensor): As they were loaded, shape (B, C, H, W), on any device; clips, (B, C, T, H, W).

        Returns:
            tuple[Tensor]: What the backbone gives.

        Raises:
            ValueError: If they have another size or another number of channels than the backbone takes.
        """
        return self.backbone(self.data_preprocessor(dict(inputs=images, data_samples=None))['inputs'])


def load_backbone(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | None = None,
    num_heads: int | None = None,
    full_scale: float | None = None,
    **kwargs,
) -> LoadedBackbone:
    """Load the backbone of any checkpoint with a ConvViT: of pretraining, a classifier, a detector or a segmentor.

    The authors' own files do as well. The architecture is that of the config, which mmengine's checkpoints bring with
    them, and else read off the tensors. So are mean and deviation of the pixels, and else ImageNet's. Nothing that a
    checkpoint may hold is run.

    Args:
        checkpoint (str | os.PathLike): The file.
        config (str | os.PathLike, optional): A config to go by instead. Defaults to None.
        num_heads (int, optional): Attention heads of stage 3, where neither a config nor the widths tell. Defaults to
            None.
        full_scale (float, optional): What the largest value of a file's depth becomes. Defaults to None, as in
            training.
        **kwargs: Other arguments of :class:`ConvViT`, such as ``out_type`` and ``out_indices``.

    Returns:
        LoadedBackbone: The backbone and how its images are prepared, on the CPU.

    Raises:
        OSError: If a file is missing.
        ValueError: If the checkpoint is damaged, has no ConvViT, or does not fit the config; or if it does not tell
            enough.
    """
    content = read_checkpoint(checkpoint)
    state_dict = our_state_dict(content, checkpoint)
    settings = config_of(content) if config is None else Config.fromfile(config).to_dict()
    source = 'the config of the checkpoint' if config is None else str(config)
    of_backbone = next(find_types(settings.get('model'), *BACKBONES), None)
    if config is not None and of_backbone is None:
        raise ValueError(f'{config} has no model with a ConvViT; give the config that the checkpoint was trained with.')

    if of_backbone is None:
        if state_dict['backbone.stages.0.blocks.0.depthwise_conv.weight'].dim() == 5:
            raise ValueError(
                f'{checkpoint} has a model of clips and does not tell how long they are; give the config that it was '
                'trained with.'
            )
        try:
            of_backbone = infer_model(state_dict)['backbone']
        except ValueError as error:
            raise ValueError(f'{checkpoint} has no whole ConvViT: {error}') from error
        origin = 'The architecture is read off the tensors of the checkpoint.'
    else:
        origin = f'The architecture is that of {source}.'
    backbone = _build(of_backbone, num_heads, kwargs)
    _load(backbone, state_dict, checkpoint)

    of_pixels = _pixel_settings(settings)
    if of_pixels is not None:
        origin += f' Mean and deviation of the pixels are those of {source}.'
    elif backbone.in_channels == 3:
        of_pixels = IMAGENET
        origin += " No config tells mean and deviation of the pixels, so they are ImageNet's."
    else:
        raise ValueError(
            f'{checkpoint} takes images of {backbone.in_channels} channels and does not tell their mean and deviation; '
            'give the config that it was trained with.'
        )
    if full_scale is None:
        full_scale = full_scale_of(settings)
    if isinstance(backbone, VideoConvViT):
        sampler, spacing = clips_of(settings, backbone.num_frames)
        return LoadedBackbone(
            backbone.eval(), ClipDataPreprocessor(**of_pixels), LoadClip(sampler), f'{origin} {spacing}'
        )
    return LoadedBackbone(
        backbone.eval(),
        ImageDataPreprocessor(**of_pixels),
        LoadWholeImage(in_channels=backbone.in_channels, full_scale=full_scale),
        origin,
    )


def full_scale_of(config: dict) -> float | None:
    """Read off a config what the largest value of a file's depth becomes.

    Args:
        config (dict): A whole config.

    Returns:
        float | None: ``full_scale`` of what loads its images, None for the files' own units.
    """
    # A pipeline may stand in a variable too, whose later changes go into the data loader alone.
    loaders = find_types([config.get('train_dataloader'), config], 'LoadWholeImage', 'LoadRandomResizedCrop')
    return next(loaders, {}).get('full_scale')


def clips_of(config: dict, num_frames: int) -> tuple[dict, str]:
    """Read off a config which frames make the clip that stands for a whole video.

    Args:
        config (dict): A whole config.
        num_frames (int): Frames of a clip.

    Returns:
        tuple[dict, str]: Config of a sampler of one clip, and a sentence on it.
    """
    parts = [config.get('train_dataloader'), config]
    if next(find_types(parts, 'SegmentClip', 'SegmentViews'), None):
        sampler = dict(type='mmconvmae.SegmentViews', num_frames=num_frames, num_clips=1)
        return sampler, f'A clip has a frame from each of {num_frames} parts of the video, as in training.'
    dense = next(find_types(parts, 'DenseClip', 'DenseViews'), {})
    interval = dense.get('frame_interval', signature(DenseClip).parameters['frame_interval'].default)
    sampler = dict(type='mmconvmae.DenseViews', num_frames=num_frames, frame_interval=interval, num_clips=1)
    return sampler, f'A clip has {num_frames} frames of the middle of the video, {interval} from one to the next.'


def our_state_dict(content: dict, path: str | os.PathLike) -> dict[str, Tensor]:
    """Give the parameters of a checkpoint our names of today; those of a backbone alone get its prefix.

    Args:
        content (dict): What :func:`mmconvmae.checkpoint.read_checkpoint` gives.
        path (str | os.PathLike): The file, for messages.

    Returns:
        dict[str, Tensor]: The parameters.

    Raises:
        ValueError: If there are none, or none of a ConvViT of ours or of the authors.
    """
    entries = [content.get('state_dict'), content.get('model'), content]
    state_dict = next((dict(entry) for entry in entries if is_state_dict(entry)), None)
    if state_dict is None:
        entries = ', '.join(map(str, list(content)[:5]))
        raise ValueError(f'{path} has no parameters (it holds {entries}); is it the right kind of file?')
    first, former = 'stages.0.patch_embed.projection.weight', 'patch_embeds.0.projection.weight'
    if first in state_dict or former in state_dict:
        state_dict = {f'backbone.{name}': value for name, value in state_dict.items()}
    use_todays_backbone_names(state_dict, 'backbone.')
    if f'backbone.{first}' in state_dict:
        return state_dict
    try:
        return from_official(state_dict)
    except ValueError as error:
        raise ValueError(f'{path} has no ConvViT of ours, nor of the authors: {error}') from error


def _build(config: dict, num_heads: int | None, overrides: dict) -> ConvViT:
    """Build a backbone with the architecture of a config."""
    # The class and these arguments alone: a config out of a checkpoint may name anything as a type.
    arguments = {name: config[name] for name in ARCHITECTURE if name in config}
    for name in ('norm_cfg', 'conv_norm_cfg'):
        norm_cfg = config.get(name)
        if isinstance(norm_cfg, dict) and norm_cfg.get('type') == 'LN':
            arguments[name] = norm_cfg
    arch = arguments.get('arch', 'base')
    if isinstance(arch, str):
        arch = parse_arch(arch)
    if num_heads is not None:
        arch = dict(arch, num_heads=num_heads)
    if arch['num_heads'] is None:
        raise ValueError(
            f'No named architecture has the widths {arch["embed_dims"]}, so the number of attention heads is not '
            'known; give `num_heads`, or the config that the checkpoint was trained with.'
        )
    of_clips = str(config.get('type')).rsplit('.', 1)[-1].startswith('Video')
    return (VideoConvViT if of_clips else ConvViT)(**dict(arguments, arch=arch, **overrides))


def _load(backbone: ConvViT, state_dict: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Load a backbone, and refuse parameters that are missing or would be passed over."""
    prefix = 'backbone.'
    own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    try:
        missing, unexpected = backbone.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise ValueError(f'{path} does not fit the model: {str(error).splitlines()[1].strip()}') from error
    # Norms of the output, and the level of stride 32, are no part of the three stages.
    faults = [f'{name} is missing' for name in missing if name.startswith('stages.')]
    faults += [f'{name} is left over' for name in unexpected if name.startswith('stages.')]
    if faults:
        raise ValueError(
            f'{path} does not fit the model: {"; ".join(faults[:3])}{"; ..." if len(faults) > 3 else ""}. Give the '
            'config that it was trained with.'
        )


def _pixel_settings(config: dict) -> dict | None:
    """Mean, deviation and order of channels in a config of any of the libraries."""
    model = config.get('model')
    found = [part.get('data_preprocessor') for part in (model, config) if isinstance(part, dict)]
    settings = next((part for part in found if isinstance(part, dict) and part.get('mean') is not None), None)
    if settings is None:
        return None
    # the others' default is False
    is_ours = str(settings.get('type')).rsplit('.', 1)[-1] in ('ImageDataPreprocessor', 'ClipDataPreprocessor')
    to_rgb = settings.get('to_rgb', settings.get('bgr_to_rgb', is_ours))
    return dict(mean=settings['mean'], std=settings['std'], to_rgb=to_rgb)
