"""Print the sizes of the pretraining models as a Markdown table: parameters, and multiply-adds of a forward pass.

python benchmarks/model_sizes.py [CONFIG ...]

Multiply-adds are those of matrix products, convolutions and attention for one image of the config's size. "Dense"
computes every position of the convolution stages (`conv_mode='masked'`), "visible" visible blocks alone. Nothing is
allocated or computed: the models live on PyTorch's meta device.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmconvmae.models import ConvMAE, ConvViT
from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds, count_parameters, markdown_table

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'convmae'
DEFAULT = [
    CONFIGS / f'convmae_convvit-{arch}-p16_8xb256-amp-coslr-200e_in1k.py' for arch in ('small', 'base', 'large', 'huge')
]
DEFAULT.insert(0, next(CONFIGS.glob('*tiny*demo*.py')))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', type=Path, default=DEFAULT, help='pretraining configs')
    return parser.parse_args()


def build(config: ConfigDict, conv_mode: str) -> ConvMAE:
    """Build a pretraining model on the meta device.

    Args:
        config (ConfigDict): Its config.
        conv_mode (str): What the encoder computes.

    Returns:
        ConvMAE: The model.
    """
    with torch.device('meta'):
        return MODELS.build(dict(config, backbone=dict(config.backbone, conv_mode=conv_mode)))


def describe(path: Path) -> dict[str, object]:
    """Describe one model.

    Args:
        path (Path): Pretraining config.

    Returns:
        dict[str, object]: Cells of a row, by the names of the columns.
    """
    config = Config.fromfile(path).model
    size, arch = config.backbone.img_size, ConvViT.arch_zoo[config.backbone.arch]
    images = torch.empty(1, 3, size, size, device='meta')
    model, dense = build(config, 'visible'), build(config, 'masked')
    return {
        'size': config.backbone.arch,
        'image': f'{size}²',
        'widths': ' / '.join(map(str, arch['embed_dims'])),
        'depths': ' / '.join(map(str, arch['depths'])),
        'heads': arch['num_heads'],
        'MLP ratios': ' / '.join(map(str, arch['mlp_ratios'])),
        'backbone, M': f'{count_parameters(model.backbone) / 1e6:.2f}',
        'with decoder, M': f'{count_parameters(model) / 1e6:.2f}',
        'dense, G': f'{count_multiply_adds(dense.loss, images, None) / 1e9:.2f}',
        'visible, G': f'{count_multiply_adds(model.loss, images, None) / 1e9:.2f}',
    }


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    rows = [describe(path) for path in args.configs]
    print(markdown_table(rows[0], (row.values() for row in rows)))


if __name__ == '__main__':
    main()
