"""What the cells compare: ways to pretrain, and the backbones that they hand on to the tasks."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from tables import RIVALS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))
from equal_seconds import mae, simmim, spark  # noqa: E402

ABLATION = 'ablations/convmae_convvit-base-p16-{}_8xb256-amp-coslr-800e_in1k.py'


class Variant(NamedTuple):
    """A way to pretrain and its backbone.

    Args:
        model (Callable[[Namespace], dict], optional): Gives the model to pretrain for the command line; None for
            random weights.
        backbone (Callable[[Namespace], dict]): Gives the backbone of the tasks.
        classifier (dict): Settings of the backbone below a classifier.
        featmap (dict): Those of a backbone that gives its last map, (B, C, h, w).
        pyramid (dict): Those of a backbone that gives maps for segmentation.
        neck (dict, optional): Makes maps of strides 4, 8, 16 and 32 of them, where they have other ones.
        recordable (bool): Whether a GPU can record a step, that is, the step never waits for the GPU.
    """

    model: Callable[[Namespace], dict] | None
    backbone: Callable[[Namespace], dict]
    classifier: dict
    featmap: dict
    pyramid: dict
    neck: dict | None = None
    recordable: bool = True


def convmae(config: str | None) -> Variant:
    """A form of ConvMAE.

    Args:
        config (str, optional): In configs/convmae; its model is made small. None is random weights.
    """

    def read() -> dict:
        return Config.fromfile(ROOT / 'configs' / 'convmae' / config).model

    def model(args: Namespace) -> dict:
        settings = read()
        settings.backbone.update(arch=args.arch, img_size=args.size)
        if args.arch == 'tiny':  # as in the template for own images
            settings.neck.update(embed_dims=128, depth=2, num_heads=4)
        settings.pop('data_preprocessor', None)
        return settings

    def backbone(args: Namespace) -> dict:
        settings = dict(type='mmconvmae.ConvViT', arch=args.arch, img_size=args.size)
        if config:
            known = read().backbone
            settings.update({key: known[key] for key in ('kernel_size',) if key in known})
        return settings

    return Variant(
        model=model if config else None,
        backbone=backbone,
        classifier=dict(drop_path_rate=0.0),
        featmap=dict(out_type='featmap'),
        pyramid=dict(out_type='featmap', out_indices=(0, 1, 2, 3), fourth_level='max_pool', drop_path_rate=0.0),
    )


def of_rival(model: Callable[[int], dict], name: str) -> Callable[[Namespace], dict]:
    """The backbone for the tasks: that of the pretraining model without what only pretraining knows."""

    def backbone(args: Namespace) -> dict:
        settings = dict(model(args.size)['backbone'], type=name)
        settings.pop('mask_ratio', None)
        return settings

    return backbone


ALL_STAGES = dict(out_indices=(0, 1, 2, 3))
VARIANTS = {
    'random': convmae(None),
    'paper': convmae('convmae_convvit-base-p16_8xb256-amp-coslr-800e_in1k.py'),
    'single-scale': convmae(ABLATION.format('single-scale')),
    'unmasked-conv': convmae(ABLATION.format('unmasked-conv')),
    'token-mask': convmae(ABLATION.format('token-mask')),
    'kernel3': convmae(ABLATION.format('kernel3')),
    'kernel7': convmae(ABLATION.format('kernel7')),
    'mae': Variant(
        model=lambda args: mae(args.size),
        backbone=of_rival(mae, 'mmpretrain.VisionTransformer'),
        classifier=dict(out_type='avg_featmap', final_norm=False),
        featmap=dict(out_type='featmap'),
        pyramid=dict(out_type='featmap', out_indices=(2, 3, 4, 6)),  # of 12 layers MAE takes 4, 6, 8 and 12
        neck=dict(type='Feature2Pyramid', embed_dim=192, norm_cfg=dict(type='BN')),
    ),
    'spark': Variant(
        model=lambda args: spark(args.size),
        backbone=lambda args: dict(type='mmpretrain.ConvNeXt', arch=spark(args.size)['backbone']['arch']),
        classifier=dict(),
        featmap=dict(gap_before_final_norm=False),
        pyramid=dict(gap_before_final_norm=False, **ALL_STAGES),
        recordable=False,
    ),
    'simmim': Variant(
        model=lambda args: simmim(args.size),
        backbone=of_rival(simmim, 'mmpretrain.SwinTransformer'),
        classifier=dict(),
        featmap=dict(),
        pyramid=ALL_STAGES,
    ),
}
SEGMENTED = ('random', 'paper', *RIVALS)
