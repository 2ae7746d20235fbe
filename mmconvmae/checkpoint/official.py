"""Checkpoints of the authors' code and ours: what the same parameter is called in each.

Shapes are the same on both sides, so a conversion only renames and keeps every bit.
"""

import copy
import math
import re

import torch
from torch import Tensor

from mmconvmae.registry import MODELS

# Names are pairs (the authors', ours); {} is a number that both share.
_TRANSFORMER_BLOCK = (
    ('norm1', 'ln1'),
    ('attn.qkv', 'attn.qkv'),
    ('attn.proj', 'attn.proj'),
    ('norm2', 'ln2'),
    ('mlp.fc1', 'ffn.layers.0.0'),
    ('mlp.fc2', 'ffn.layers.1'),
)
_CONV_BLOCK = (
    ('norm1', 'ln1'),
    ('conv1', 'conv1'),
    ('attn', 'depthwise_conv'),
    ('conv2', 'conv2'),
    ('norm2', 'ln2'),
    ('mlp.fc1', 'ffn.0'),
    ('mlp.fc2', 'ffn.2'),
)


def _inside(theirs: str, ours: str, names: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Names inside a module of which each side has its own name."""
    return tuple((theirs + name, ours + our_name) for name, our_name in names)


_BACKBONE = (
    ('pos_embed', 'backbone.stages.2.pos_embed.weight'),
    *(
        pair
        for i in range(3)
        for pair in _inside(
            f'patch_embed{i + 1}.', f'backbone.stages.{i}.patch_embed.', (('proj', 'projection'), ('norm', 'norm'))
        )
    ),
    ('patch_embed4', 'backbone.stages.2.token_embed'),
    *_inside('blocks1.{}.', 'backbone.stages.0.blocks.{}.', _CONV_BLOCK),
    *_inside('blocks2.{}.', 'backbone.stages.1.blocks.{}.', _CONV_BLOCK),
    *_inside('blocks3.{}.', 'backbone.stages.2.blocks.{}.', _TRANSFORMER_BLOCK),
    # of detection and segmentation
    ('blocks3.{}.gamma_1', 'backbone.stages.2.blocks.{}.attn.gamma1.weight'),
    ('blocks3.{}.gamma_2', 'backbone.stages.2.blocks.{}.ffn.gamma2.weight'),
    ('blocks3.{}.attn.relative_position_bias_table', 'backbone.stages.2.blocks.{}.attn.rel_pos.weight'),
    ('blocks3.{}.attn.rel_pos_h', 'backbone.stages.2.blocks.{}.attn.rel_pos.rows.weight'),
    ('blocks3.{}.attn.rel_pos_w', 'backbone.stages.2.blocks.{}.attn.rel_pos.columns.weight'),
    ('windowed_rel_pos_bias.relative_position_bias_table', 'backbone.stages.2.window_rel_pos.weight'),
    ('global_rel_pos_bias.relative_position_bias_table', 'backbone.stages.2.global_rel_pos.weight'),
    ('fpn.{}', 'backbone.fourth_level.{}'),
)
_PRETRAINING = (
    ('stage1_output_decode', 'neck.fusion.projections.0'),
    ('stage2_output_decode', 'neck.fusion.projections.1'),
    ('norm', 'neck.fusion.norm'),
    ('decoder_embed', 'neck.decoder_embed'),
    ('mask_token', 'neck.mask_token'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed.weight'),
    *_inside('decoder_blocks.{}.', 'neck.decoder_blocks.{}.', _TRANSFORMER_BLOCK),
    ('decoder_norm', 'neck.decoder_norm'),
    ('decoder_pred', 'neck.decoder_pred'),
)
_CLASSIFIER = (('fc_norm', 'backbone.norm2'), ('head', 'head.fc'))


def _conv_module(theirs: str, ours: str, norm: str) -> tuple[tuple[str, str], ...]:
    """Names in a convolution of detectron2, which has its norm inside, and in mmcv's ``ConvModule``."""
    return (theirs, f'{ours}.conv'), (f'{theirs}.norm', f'{ours}.{norm}')


# Detectron2's Mask R-CNN, in which the authors trained their detectors, and mmdet's. Both have the same order of
# classes (background last), anchors, a box's four numbers, and channels, rows and columns before the linear layer.
_FPN = tuple(
    pair
    for i in range(4)
    for theirs, ours in (('lateral', 'lateral'), ('output', 'fpn'))
    for pair in _conv_module(f'backbone.fpn_{theirs}{i + 2}', f'neck.{ours}_convs.{i}', 'bn')
)
_SIMPLE_FEATURE_PYRAMID = (
    *(
        (f'backbone.simfp_{i + 2}.{layer}', f'neck.levels.{i}.{layer}')
        for i, layers in enumerate(((0, 1, 3), (0,)))
        for layer in layers
    ),
    # two convolutions after what brings the map to a level's stride
    *(
        pair
        for i, first in enumerate((4, 1, 0, 1))
        for layer in (first, first + 1)
        for pair in _conv_module(f'backbone.simfp_{i + 2}.{layer}', f'neck.levels.{i}.{layer}', 'ln')
    ),
)
_HEADS = (
    ('proposal_generator.rpn_head.conv.conv{}', 'rpn_head.rpn_conv.{}.conv'),
    ('proposal_generator.rpn_head.objectness_logits', 'rpn_head.rpn_cls'),
    ('proposal_generator.rpn_head.anchor_deltas', 'rpn_head.rpn_reg'),
    ('roi_heads.box_head.fc1', 'roi_head.bbox_head.shared_fcs.0'),
    ('roi_heads.box_predictor.cls_score', 'roi_head.bbox_head.fc_cls'),
    ('roi_heads.box_predictor.bbox_pred', 'roi_head.bbox_head.fc_reg'),
    ('roi_heads.mask_head.deconv', 'roi_head.mask_head.upsample'),
    ('roi_heads.mask_head.predictor', 'roi_head.mask_head.conv_logits'),
)


def _convs_of_heads(norm: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        pair
        for i in range(4)
        for theirs, ours in (('box_head.conv', 'bbox_head.shared_convs'), ('mask_head.mask_fcn', 'mask_head.convs'))
        for pair in _conv_module(f'roi_heads.{theirs}{i + 1}', f'roi_head.{ours}.{i}', norm)
    )


# The backbone of MIMDet, a rival.
_MIMDET = (
    ('encoder.patch_embed.proj.{}.{}', 'backbone.stem.{}.{}'),
    ('encoder.pos_embed', 'backbone.pos_embed.weight'),
    *_inside('encoder.blocks.{}.', 'backbone.layers.{}.', _TRANSFORMER_BLOCK),
    ('encoder.norm', 'backbone.ln1'),
    ('decoder.decoder_embed', 'backbone.decoder_embed'),
    ('decoder.conv_feat_proj', 'backbone.stem_embed'),
    ('decoder.decoder_pos_embed', 'backbone.decoder_pos_embed.weight'),
    *_inside('decoder.decoder_blocks.{}.', 'backbone.decoder_blocks.{}.', _TRANSFORMER_BLOCK),
    ('decoder.decoder_norm', 'backbone.decoder_norm'),
)
# mmseg calls the heads of UperNet as it did when the authors used it.
_UPERNET = (('decode_head.*', 'decode_head.*'), ('auxiliary_head.*', 'auxiliary_head.*'))
# Of each task: where the authors have the backbone in a checkpoint, how some of our names begin (none does so in the
# tasks below), and what else a checkpoint holds.
_TASKS = (
    ('backbone.net.', 'neck.levels.', _SIMPLE_FEATURE_PYRAMID + _HEADS + _convs_of_heads('ln')),
    ('backbone.bottom_up.', 'roi_head.', _FPN + _HEADS + _convs_of_heads('bn')),
    ('backbone.', 'decode_head.', _UPERNET),
    ('', '', _PRETRAINING + _CLASSIFIER),
)
# What the authors keep in checkpoints although it follows from the rest.
_DERIVED = re.compile(
    r'.*\brelative_position_index|pixel_(mean|std)|proposal_generator\.anchor_generator\.cell_anchors\.\d+'
)
# Our name of the first layer of a block's MLP, in each stage.
_FC1 = ('ffn.0', 'ffn.0', 'ffn.layers.0.0')
# What a released pretraining checkpoint leaves out.
_DECODER = ('neck.decoder_', 'neck.mask_token')
# The blocks that attend globally in the released detector; with shared tables they leave no trace in a checkpoint.
_GLOBAL_BLOCKS = (0, 3, 6, 10)


def _rename(state_dict: dict[str, Tensor], names: tuple[tuple[str, str], ...], origin: str) -> dict[str, Tensor]:
    # A parameter of a module is the module's name and .weight, or the like; some names are parameters themselves.
    parameter = r'(|\.weight|\.bias|\.running_mean|\.running_var|\.num_batches_tracked)'
    rules = []
    for old, new in names:
        pattern = re.escape(old).replace(r'\{\}', r'(\d+)').replace(r'\*', '(.*)')
        rules.append((re.compile(pattern + parameter), new.replace('*', '{}')))
    renamed, unknown = {}, []
    for name, value in state_dict.items():
        for pattern, new in rules:
            if match := pattern.fullmatch(name):
                *parts, ending = match.groups()
                renamed[new.format(*parts) + ending] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(state_dict)} names are none of {origin}: {", ".join(unknown[:3])}'
            f'{", ..." if len(unknown) > 3 else ""}; is it a checkpoint of something else?'
        )
    return renamed


def _position_index(table: Tensor) -> Tensor:
    """The row of a square window's table for each pair of positions, shape (edge², edge²), which the authors keep."""
    edge = (math.isqrt(len(table)) + 1) // 2
    places = torch.arange(edge**2)
    rows, columns = places // edge, places % edge
    offset = (rows[:, None] - rows + edge - 1) * (2 * edge - 1)
    return offset + columns[:, None] - columns + edge - 1


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of an official checkpoint to ours.

    Args:
        state_dict (dict[str, Tensor]): What the official file holds: a pretraining model with or without decoder, a
            finetuned classifier, a Mask R-CNN of detectron2 with a feature pyramid or in ViTDet's form, a UperNet of
            mmseg, or the backbone of one of these.

    Returns:
        dict[str, Tensor]: The same tensors, for :class:`ConvMAE`, or for mmpretrain's ``ImageClassifier``, mmdet's
        ``MaskRCNN`` or mmseg's ``EncoderDecoder`` with a :class:`ConvViT`.

    Raises:
        ValueError: If it holds a name that no official ConvMAE checkpoint has.
    """
    prefix, _, others = next(
        task for task in _TASKS if f'{task[0]}patch_embed1.proj.weight' in state_dict or not task[0]
    )
    parameters = {name: value for name, value in state_dict.items() if not _DERIVED.fullmatch(name)}
    return _rename(parameters, _inside(prefix, '', _BACKBONE) + others, "the authors' ConvMAE")


def mimdet_from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a MIMDet, as its authors' Mask R-CNN of detectron2 has them, to ours.

    Args:
        state_dict (dict[str, Tensor]): What the file of the authors of MIMDet holds.

    Returns:
        dict[str, Tensor]: The same tensors, for mmdet's ``MaskRCNN`` with a ``MIMDet``. Position embeddings lose the
        place of a class token, which MIMDet does not have.

    Raises:
        ValueError: If it holds a name that no MIMDet has.
    """
    parameters = {
        name: value[:, 1:] if name.endswith('pos_embed') else value
        for name, value in state_dict.items()
        if not _DERIVED.fullmatch(name)
    }
    return _rename(
        parameters,
        _inside('backbone.bottom_up.', '', _MIMDET) + _FPN + _HEADS + _convs_of_heads('bn'),
        "the authors' MIMDet",
    )


# BEiT's names, which data2vec's released files have, and mmpretrain's. In a pretraining model final norm and linear
# layer are the head's; a classifier has a norm after the mean.
_BEIT = (
    ('cls_token', 'backbone.cls_token'),
    ('mask_token', 'backbone.mask_token'),
    ('patch_embed.proj', 'backbone.patch_embed.projection'),
    ('rel_pos_bias.relative_position_bias_table', 'backbone.rel_pos_bias.relative_position_bias_table'),
    *_inside('blocks.{}.', 'backbone.layers.{}.', _TRANSFORMER_BLOCK),
    *((f'blocks.{{}}.{name}', f'backbone.layers.{{}}.{name}') for name in ('gamma_1', 'gamma_2')),
    *((f'blocks.{{}}.attn.{name}', f'backbone.layers.{{}}.attn.{name}') for name in ('q_bias', 'v_bias')),
    (
        'blocks.{}.attn.relative_position_bias_table',
        'backbone.layers.{}.attn.rel_pos_bias.relative_position_bias_table',
    ),
    ('norm', 'head.norm'),
    ('lm_head', 'head.fc'),
    ('fc_norm', 'backbone.ln2'),
    ('head', 'head.fc'),
)


def data2vec_from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a data2vec checkpoint for images, which are called as BEiT's, to mmpretrain's.

    Args:
        state_dict (dict[str, Tensor]): What the file of its authors holds, pretrained or finetuned.

    Returns:
        dict[str, Tensor]: The same tensors, for :class:`Data2Vec`, whose teacher begins anew, or for mmpretrain's
        ``ImageClassifier`` with a ``BEiTViT``. Indices of relative positions are left out, for every model makes its
        own.

    Raises:
        ValueError: If it holds a name that is none of BEiT's.
    """
    parameters = {name: x for name, x in state_dict.items() if not name.endswith('relative_position_index')}
    return _rename(parameters, _BEIT, "BEiT's, which data2vec has")


def to_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our parameters to the authors' names: the inverse of :func:`from_official`.

    Args:
        state_dict (dict[str, Tensor]): State dict of one of the models that :func:`from_official` names.

    Returns:
        dict[str, Tensor]: The same tensors under the authors' names, and the index of each table of relative positions.

    Raises:
        ValueError: If it holds a name that no such model has.
    """
    prefix, _, others = next(task for task in _TASKS if any(name.startswith(task[1]) for name in state_dict))
    # OpenMMLab's data preprocessors keep the pixel mean and deviation out of checkpoints, so all names are parameters.
    names = tuple((ours, theirs) for theirs, ours in _inside(prefix, '', _BACKBONE) + others)
    official = {}
    for name, value in _rename(state_dict, names, 'ours').items():
        official[name] = value
        if name.endswith('relative_position_bias_table'):
            official[name.replace('bias_table', 'index')] = _position_index(value)
    return official


def infer_model(state_dict: dict[str, Tensor]) -> dict:
    """Read the config of a model off the names and shapes of its parameters.

    Args:
        state_dict (dict[str, Tensor]): A whole state dict under our names.

    Returns:
        dict: Config of a :class:`ConvMAE`, whose decoder is the default one if the file has none, or of mmpretrain's
        ``ImageClassifier``; of a detector or segmentor, the config of the backbone alone, as
        ``dict(backbone=...)``. Heads of attention leave no trace in shapes but in those of relative positions:
        ``num_heads`` is else that of the named architecture with these widths, or None; the decoder's is left out. Nor
        do the blocks that attend globally where tables are shared, and padding of windows and the norms of convolution
        blocks where positions are decomposed; they are those of the released detectors.

    Raises:
        ValueError: If parameters are missing or their shapes do not fit together.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(f'{name!r} is missing; the checkpoint is not whole, or not of a ConvMAE model.')
        return state_dict[name].shape

    def depth(blocks: str) -> int:
        return len({name.split('.')[blocks.count('.')] for name in state_dict if name.startswith(blocks)})

    embeds = [shape(f'backbone.stages.{i}.patch_embed.projection.weight') for i in range(3)]
    widths, patch_sizes = tuple(size[0] for size in embeds), tuple(size[-1] for size in embeds)
    hidden = [shape(f'backbone.stages.{i}.blocks.0.{fc1}.weight')[0] for i, fc1 in enumerate(_FC1)]
    known_heads = {arch['embed_dims']: arch['num_heads'] for arch in MODELS.get('ConvViT').arch_zoo.values()}
    img_size = math.isqrt(shape('backbone.stages.2.pos_embed.weight')[1]) * math.prod(patch_sizes)
    backbone = dict(
        arch=dict(
            embed_dims=widths,
            depths=tuple(depth(f'backbone.stages.{i}.blocks.') for i in range(3)),
            num_heads=known_heads.get(widths),
            mlp_ratios=tuple(h / w for h, w in zip(hidden, widths)),
        ),
        img_size=img_size,
        patch_sizes=patch_sizes,
        in_channels=embeds[0][1],
        kernel_size=shape('backbone.stages.0.blocks.0.depthwise_conv.weight')[-1],
    )
    if 'head.fc.weight' not in state_dict and 'neck.fusion.norm.weight' not in state_dict:
        backbone.update(_infer_dense_prediction(state_dict, backbone))
        return dict(backbone=dict(type='mmconvmae.ConvViT', **backbone))
    if 'head.fc.weight' in state_dict:
        num_classes, in_channels = shape('head.fc.weight')
        return dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmconvmae.ConvViT', **backbone),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=in_channels),
        )
    neck = dict(type='mmconvmae.ConvMAEPretrainDecoder', multi_scale='neck.fusion.projections.0.weight' in state_dict)
    if _has_decoder(state_dict):
        width = shape('neck.decoder_embed.weight')[0]
        neck.update(
            embed_dims=width,
            depth=depth('neck.decoder_blocks.'),
            mlp_ratio=shape(f'neck.decoder_blocks.0.{_FC1[2]}.weight')[0] / width,
        )
    return dict(type='mmconvmae.ConvMAE', backbone=dict(type='mmconvmae.ConvMAEViT', **backbone), neck=neck)


def _has_decoder(state_dict: dict[str, Tensor]) -> bool:
    return any(name.startswith(_DECODER) for name in state_dict)


def _infer_dense_prediction(state_dict: dict[str, Tensor], backbone: dict) -> dict:
    """What the config of a backbone for detection or segmentation has beside that of another backbone."""
    arch = backbone['arch']
    grid = backbone['img_size'] // math.prod(backbone['patch_sizes'])
    config = dict(out_type='featmap', out_indices=(0, 1, 2, 3), fourth_level='max_pool')
    if 'neck.levels.0.0.weight' in state_dict:
        config.update(out_indices=2, fourth_level=None)
    if 'backbone.fourth_level.0.weight' in state_dict:
        config.update(fourth_level='conv')
    if 'backbone.stages.2.blocks.0.attn.gamma1.weight' in state_dict:
        config.update(layer_scale_init_value=1.0)

    def of_blocks(parameter: str) -> list[torch.Size]:
        names = [f'backbone.stages.2.blocks.{i}.attn.rel_pos.{parameter}' for i in range(arch['depths'][2])]
        return [state_dict[name].shape for name in names if name in state_dict]

    tables, rows = of_blocks('weight'), of_blocks('rows.weight')
    window = state_dict.get('backbone.stages.2.window_rel_pos.weight')
    if tables:
        config.update(rel_pos='per_block')
        arch = dict(arch, num_heads=tables[0][1])
        edges = [(math.isqrt(length) + 1) // 2 for length, _ in tables]
        if set(edges) != {grid}:
            config.update(window_size=next(edge for edge in edges if edge != grid))
            config.update(global_attn_indexes=tuple(i for i, edge in enumerate(edges) if edge == grid))
    elif rows:
        arch = dict(arch, num_heads=arch['embed_dims'][2] // rows[0][1])
        edges = [(length + 1) // 2 for length, _ in rows]
        config.update(
            rel_pos='decomposed',
            img_size=max(edges) * math.prod(backbone['patch_sizes']),
            pretrain_img_size=backbone['img_size'],
            conv_norm_cfg=dict(type='LN', eps=1e-6),
        )
        if min(edges) < max(edges):
            config.update(window_size=min(edges), pad_windows=True)
            config.update(global_attn_indexes=tuple(i for i, edge in enumerate(edges) if edge == max(edges)))
    elif window is not None:
        arch = dict(arch, num_heads=window.shape[1])
        config.update(
            rel_pos='shared', window_size=(math.isqrt(len(window)) + 1) // 2, global_attn_indexes=_GLOBAL_BLOCKS
        )
    return dict(config, arch=arch)


def check_strict(state_dict: dict[str, Tensor], config: dict) -> None:
    """Check that a state dict loads strictly into a model, without allocating the model.

    The decoder of pretraining may be missing as a whole, as it is in the released checkpoints.

    Args:
        state_dict (dict[str, Tensor]): State dict under our names.
        config (dict): Config of the model, or of the backbone alone, as :func:`infer_model` gives it.

    Raises:
        ValueError: If a name is missing or left over, or a shape differs.
    """
    config = copy.deepcopy(config)
    if config['backbone']['arch']['num_heads'] is None:
        config['backbone']['arch']['num_heads'] = 1  # any number gives the same shapes
    if 'type' not in config:
        config = config['backbone']
        prefix = 'backbone.'
        state_dict = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    if 'neck' in config:
        config['neck']['num_heads'] = 1
    with torch.device('meta'):
        expected = {name: value.shape for name, value in MODELS.build(config).state_dict().items()}
    if not _has_decoder(state_dict):
        expected = {name: shape for name, shape in expected.items() if not name.startswith(_DECODER)}
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
