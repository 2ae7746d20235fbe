"""Checkpoints of the authors' code and ours: what the same parameter is called in each.

Shapes are the same on both sides, so a conversion only renames and keeps every bit.
"""

import argparse
import copy
import math
import os
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from mmconvmae.models import ConvViT
from mmconvmae.registry import MODELS

# (the authors' name, ours); {} is a number that both share.
_NAMES = (
    ('pos_embed', 'backbone.pos_embed.weight'),
    *(
        (f'patch_embed{stage}.{theirs}', f'backbone.patch_embeds.{stage - 1}.{ours}')
        for stage in (1, 2, 3)
        for theirs, ours in (('proj', 'projection'), ('norm', 'norm'))
    ),
    ('patch_embed4', 'backbone.token_embed'),
    *(
        (f'blocks{stage}.{{}}.{theirs}', f'backbone.stages.{stage - 1}.{{}}.{ours}')
        for stage in (1, 2)
        for theirs, ours in (
            ('norm1', 'ln1'),
            ('conv1', 'conv1'),
            ('attn', 'depthwise_conv'),
            ('conv2', 'conv2'),
            ('norm2', 'ln2'),
            ('mlp.fc1', 'ffn.0'),
            ('mlp.fc2', 'ffn.2'),
        )
    ),
    *(
        (f'{theirs_prefix}.{{}}.{theirs}', f'{ours_prefix}.{{}}.{ours}')
        for theirs_prefix, ours_prefix in (('blocks3', 'backbone.stages.2'), ('decoder_blocks', 'neck.decoder_blocks'))
        for theirs, ours in (
            ('norm1', 'ln1'),
            ('attn.qkv', 'attn.qkv'),
            ('attn.proj', 'attn.proj'),
            ('norm2', 'ln2'),
            ('mlp.fc1', 'ffn.layers.0.0'),
            ('mlp.fc2', 'ffn.layers.1'),
        )
    ),
    ('stage1_output_decode', 'neck.projections.0'),
    ('stage2_output_decode', 'neck.projections.1'),
    ('norm', 'neck.norm'),
    ('decoder_embed', 'neck.decoder_embed'),
    ('mask_token', 'neck.mask_token'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed.weight'),
    ('decoder_norm', 'neck.decoder_norm'),
    ('decoder_pred', 'neck.decoder_pred'),
    ('fc_norm', 'backbone.norm2'),
    ('head', 'head.fc'),
)
# Our name of the first layer of a block's MLP, in each stage.
_FC1 = ('ffn.0', 'ffn.0', 'ffn.layers.0.0')


def _rename(state_dict: dict[str, Tensor], names: tuple[tuple[str, str], ...], origin: str) -> dict[str, Tensor]:
    # A parameter of a module is the module's name and .weight or .bias; some names are parameters themselves.
    rules = [(re.compile(re.escape(old).replace(r'\{\}', r'(\d+)') + r'(\.weight|\.bias|)'), new) for old, new in names]
    renamed, unknown = {}, []
    for name, value in state_dict.items():
        for pattern, new in rules:
            if match := pattern.fullmatch(name):
                *numbers, parameter = match.groups()
                renamed[new.format(*numbers) + parameter] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(state_dict)} names are none of {origin}: {", ".join(unknown[:3])}'
            f'{", ..." if len(unknown) > 3 else ""}; is it a checkpoint of something else?'
        )
    return renamed


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of an official checkpoint to ours.

    Args:
        state_dict (dict[str, Tensor]): What the official file holds under 'model': a pretraining model with or
            without decoder, or a finetuned classifier.

    Returns:
        dict[str, Tensor]: The same tensors, for :class:`ConvMAE` or mmpretrain's ``ImageClassifier`` with a
        :class:`ConvViT`.

    Raises:
        ValueError: If it holds a name that no official ConvMAE checkpoint has.
    """
    return _rename(state_dict, _NAMES, "the authors' ConvMAE")


def to_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our parameters to the authors' names: the inverse of :func:`from_official`.

    Args:
        state_dict (dict[str, Tensor]): State dict of a :class:`ConvMAE` or of mmpretrain's ``ImageClassifier`` with a
            :class:`ConvViT`.

    Returns:
        dict[str, Tensor]: The same tensors under the authors' names.

    Raises:
        ValueError: If it holds a name that no such model has.
    """
    # mmpretrain's data preprocessors keep the pixel mean and deviation out of checkpoints, so all names are parameters.
    return _rename(state_dict, tuple((ours, theirs) for theirs, ours in _NAMES), 'ours')


def infer_model(state_dict: dict[str, Tensor]) -> dict:
    """Read the config of a model off the names and shapes of its parameters.

    Args:
        state_dict (dict[str, Tensor]): A whole state dict under our names.

    Returns:
        dict: Config of a :class:`ConvMAE`, with :class:`MultiScaleFusion` for a neck if there is no decoder, or of
        mmpretrain's ``ImageClassifier``. Heads of attention leave no trace in shapes: ``num_heads`` is that of the
        named architecture with these widths, or None; the decoder's is left out.

    Raises:
        ValueError: If parameters are missing or their shapes do not fit together.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(f'{name!r} is missing; the checkpoint is not whole, or not of a ConvMAE model.')
        return state_dict[name].shape

    def depth(blocks: str) -> int:
        return len({name.split('.')[blocks.count('.')] for name in state_dict if name.startswith(blocks)})

    embeds = [shape(f'backbone.patch_embeds.{i}.projection.weight') for i in range(3)]
    widths, patch_sizes = tuple(size[0] for size in embeds), tuple(size[-1] for size in embeds)
    hidden = [shape(f'backbone.stages.{i}.0.{fc1}.weight')[0] for i, fc1 in enumerate(_FC1)]
    known_heads = {arch['embed_dims']: arch['num_heads'] for arch in ConvViT.arch_zoo.values()}
    img_size = math.isqrt(shape('backbone.pos_embed.weight')[1]) * math.prod(patch_sizes)
    backbone = dict(
        arch=dict(
            embed_dims=widths,
            depths=tuple(depth(f'backbone.stages.{i}.') for i in range(3)),
            num_heads=known_heads.get(widths),
            mlp_ratios=tuple(h / w for h, w in zip(hidden, widths)),
        ),
        img_size=img_size,
        patch_sizes=patch_sizes,
        in_channels=embeds[0][1],
        kernel_size=shape('backbone.stages.0.0.depthwise_conv.weight')[-1],
    )
    if 'head.fc.weight' in state_dict:
        num_classes, in_channels = shape('head.fc.weight')
        return dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmconvmae.ConvViT', **backbone),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=in_channels),
        )
    neck = dict(
        type='mmconvmae.MultiScaleFusion',
        in_channels=widths,
        patch_sizes=patch_sizes,
        multi_scale='neck.projections.0.weight' in state_dict,
    )
    if any(name.startswith('neck.decoder_') for name in state_dict):
        width = shape('neck.decoder_embed.weight')[0]
        neck.update(
            type='mmconvmae.ConvMAEPretrainDecoder',
            img_size=img_size,
            in_chans=embeds[0][1],
            embed_dims=width,
            depth=depth('neck.decoder_blocks.'),
            mlp_ratio=shape(f'neck.decoder_blocks.0.{_FC1[2]}.weight')[0] / width,
        )
    return dict(type='mmconvmae.ConvMAE', backbone=dict(type='mmconvmae.ConvMAEViT', **backbone), neck=neck)


def check_strict(state_dict: dict[str, Tensor], config: dict) -> None:
    """Check that a state dict loads strictly into a model, without allocating the model.

    Args:
        state_dict (dict[str, Tensor]): State dict under our names.
        config (dict): Config of the model, as :func:`infer_model` gives it.

    Raises:
        ValueError: If a name is missing or left over, or a shape differs.
    """
    config = copy.deepcopy(config)
    # Any number of heads gives the same shapes.
    config['backbone']['arch']['num_heads'] = 1
    if config.get('neck', {}).get('type') == 'mmconvmae.ConvMAEPretrainDecoder':
        config['neck']['num_heads'] = 1
    with torch.device('meta'):
        expected = {name: value.shape for name, value in MODELS.build(config).state_dict().items()}
    faults = [
        *(f'{name!r} is missing' for name in expected if name not in state_dict),
        *(f'{name!r} is left over' for name in state_dict if name not in expected),
        *(
            f'{name!r} is {tuple(value.shape)} and not {tuple(expected[name])}'
            for name, value in state_dict.items()
            if name in expected and value.shape != expected[name]
        ),
    ]
    if faults:
        raise ValueError(
            f'The parameters do not fit together to a ConvMAE model: {"; ".join(faults[:3])}'
            f'{"; ..." if len(faults) > 3 else ""}.'
        )


def read_state_dict(path: str | os.PathLike, key: str, trusted: bool = False) -> dict[str, Tensor]:
    """Read the parameters out of a checkpoint file.

    Args:
        path (str | os.PathLike): The file.
        key (str): The entry that holds them: 'model' in official files, 'state_dict' in mmengine's.
        trusted (bool): Whether the file may run code when it is read, as the training state in mmengine's own
            checkpoints needs. Defaults to False.

    Returns:
        dict[str, Tensor]: The parameters.

    Raises:
        ValueError: If the file is no whole checkpoint or has no such entry.
        OSError: If the file cannot be opened.
    """
    file = open(path, 'rb')
    try:
        with file, torch.serialization.safe_globals([argparse.Namespace]):  # the authors keep their arguments in it
            content = torch.load(file, map_location='cpu', weights_only=not trusted)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f'{path} is truncated or not a PyTorch checkpoint ({reason}); fetch it again.') from error
    entry = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entry, dict) or not entry or not all(isinstance(value, Tensor) for value in entry.values()):
        entries = ', '.join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f'{path} has no parameters under {key!r} (it holds {entries}); is it the right kind of file?')
    return entry


def write_checkpoint(content: dict, path: str | os.PathLike) -> None:
    """Write a checkpoint so that the file is either whole or not there.

    Args:
        content (dict): What to save.
        path (str | os.PathLike): The file; its folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.part')
    try:
        torch.save(content, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
