"""What happens when a backbone or a decoder is about to load a state dict, and how version 0.1 is told from today's."""

import re

import torch.nn as nn
from mmengine.logging import MMLogger
from torch import Tensor

# What the parts of a ConvViT, and of the decoder, were called in version 0.1, and are called now.
_BACKBONE_NAMES = (
    (r'patch_embeds\.(\d)\.', r'stages.\1.patch_embed.'),
    (r'stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'(token_embed|pos_embed)\.', r'stages.2.\1.'),
    (r'shared_rel_pos\.(window|global)\.', r'stages.2.\1_rel_pos.'),
)
_DECODER_NAMES = ((r'(projections|norm)\.', r'fusion.\1.'),)


def check_state_dict(backbone: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
    """Refuse a state dict of another architecture, which loading that is not strict would pass over.

    A hook for ``register_load_state_dict_pre_hook`` of a :class:`ConvViT`. Names of older versions become today's.

    Args:
        backbone (nn.Module): The backbone.
        state_dict (dict[str, Tensor]): What is about to be loaded, changed in place.
        prefix (str): What the names of the backbone's parameters start with.

    Raises:
        ValueError: If it holds nothing of such a backbone, or a parameter has another shape, or a stage another number
            of blocks.
    """
    use_todays_backbone_names(state_dict, prefix)
    own = {prefix + name: value for name, value in backbone.state_dict().items()}
    loaded = {name: value for name, value in state_dict.items() if name in own}
    if state_dict and not loaded:
        raise ValueError(
            f'The checkpoint holds nothing of this {type(backbone).__name__}: its names are like '
            f'{next(iter(state_dict))!r} and not like {next(iter(own))!r}. Convert an official checkpoint with '
            "tools/model_converters/convmae_official.py, and load a pretraining one with `prefix='backbone.'`."
        )
    for name, value in loaded.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f'The checkpoint has {value!r:.40} under {name}, where a parameter should be; was it changed by hand?'
            )
    for name, value in loaded.items():
        if name.endswith('.depthwise_conv.weight') and value.dim() != own[name].dim():
            of, takes = ('images', 'clips') if value.dim() == 4 else ('clips', 'images')
            raise ValueError(
                f'The checkpoint is of a model for {of}, and {type(backbone).__name__} takes {takes}; make one for '
                'clips of one for images with tools/model_converters/inflate_image_checkpoint.py.'
            )
    # Embeddings and tables may be of another grid: they are resized.
    grids = {f'{prefix}{name}.weight' for name, module in backbone.named_modules() if hasattr(module, 'resize')}
    for name, value in loaded.items():
        fits = value.shape[-1] == own[name].shape[-1] if name in grids else value.shape == own[name].shape
        if not fits:
            raise ValueError(
                f'The checkpoint is of another architecture: {name} is {tuple(value.shape)} in it and '
                f'{tuple(own[name].shape)} in this model; set `arch`, `patch_sizes` and `kernel_size` to those of '
                'the checkpoint.'
            )
    for i, depth in enumerate(backbone.depths):
        start = f'{prefix}stages.{i}.blocks.'
        in_checkpoint = {name[len(start) :].split('.')[0] for name in state_dict if name.startswith(start)}
        if in_checkpoint and len(in_checkpoint) != depth:
            raise ValueError(
                f'The checkpoint is of another architecture: stage {i + 1} has {len(in_checkpoint)} blocks in it '
                f'and {depth} in this model; set `depths` in `arch` to those of the checkpoint.'
            )


def use_todays_backbone_names(state_dict: dict[str, Tensor], prefix: str) -> None:
    """Rename what the backbone's parameters were called in older versions.

    Args:
        state_dict (dict[str, Tensor]): Parameters, changed in place.
        prefix (str): What the names of the backbone's parameters start with.
    """
    _use_todays_names(_BACKBONE_NAMES, state_dict, prefix)


def use_todays_decoder_names(decoder: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
    """Rename what the decoder's parameters were called in older versions.

    A hook for ``register_load_state_dict_pre_hook`` of a :class:`ConvMAEPretrainDecoder`.

    Args:
        decoder (nn.Module): The decoder.
        state_dict (dict[str, Tensor]): What is about to be loaded, changed in place.
        prefix (str): What the names of the decoder's parameters start with.
    """
    _use_todays_names(_DECODER_NAMES, state_dict, prefix)


def has_former_names(state_dict: dict[str, Tensor]) -> bool:
    """Whether a model's state dict is of version 0.1.

    Its parameters were in another order too, in which a checkpoint has the optimiser's state.

    Args:
        state_dict (dict[str, Tensor]): The state dict.

    Returns:
        bool: Whether it has a name that version 0.2 has not.
    """
    return any(name.startswith('backbone.patch_embeds.') for name in state_dict)


def _use_todays_names(names: tuple[tuple[str, str], ...], state_dict: dict[str, Tensor], prefix: str) -> None:
    renamed = 0
    for name in [name for name in state_dict if name.startswith(prefix)]:
        for former, today in names:
            new, found = re.subn(f'^{former}', today, name.removeprefix(prefix))
            if found:
                state_dict[prefix + new] = state_dict.pop(name)
                renamed += 1
    if renamed:
        MMLogger.get_current_instance().info(f'{renamed} parameters have names of mmconvmae 0.1; they are renamed.')
