"""Print the sizes of the pretraining models as a Markdown table: parameters, and multiply-adds of a forward pass.

python tools/analysis_tools/model_sizes.py [CONFIG ...]

Multiply-adds are those of matrix products, convolutions and attention for one image of the config's size. "Dense"
computes every position of the convolution stages (`conv_mode='masked'`), "visible" visible blocks alone. Nothing is
allocated or computed: the models live on PyTorch's meta device.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.flop_counter import FlopCounterMode

from mmconvmae.models import ConvMAE, ConvViT
from mmconvmae.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'convmae'
DEFAULT = [
    CONFIGS / f'convmae_convvit-{arch}-p16_8xb256-amp-coslr-200e_in1k.py' for arch in ('small', 'base', 'large', 'huge')
]
DEFAULT.insert(0, next(CONFIGS.glob('*tiny*demo*.py')))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', type=Path, default=DEFAULT, help='pretraining configs')
    return parser.parse_args()


def build(config: Path, conv_mode: str) -> tuple[ConvMAE, int]:
    """Build a config's model on the meta device.

    Args:
        config (Path): Pretraining config.
        conv_mode (str): What the encoder computes.

    Returns:
        tuple[ConvMAE, int]: The model and the edge of its images, in pixels.
    """
    model = Config.fromfile(config).model
    init_default_scope('mmpretrain')
    model.backbone.conv_mode = conv_mode
    with torch.device('meta'):
        return MODELS.build(model), model.backbone.img_size


def count_multiply_adds(model: ConvMAE, img_size: int) -> int:
    """Count the multiply-adds of the forward pass of pretraining.

    Args:
        model (ConvMAE): A model on the meta device.
        img_size (int): Edge of an image, in pixels.

    Returns:
        int: Multiply-adds for one image.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.loss(torch.rand(1, 3, img_size, img_size, device='meta'), None)
    return counter.get_total_flops() // 2


def table_row(config: Path) -> str:
    """Describe one model.

    Args:
        config (Path): Pretraining config.

    Returns:
        str: A row of the table.
    """
    model, img_size = build(config, 'visible')
    dense, _ = build(config, 'masked')
    backbone = model.backbone
    arch = ConvViT.arch_zoo[Config.fromfile(config).model.backbone.arch]
    with_decoder, without = (sum(p.numel() for p in module.parameters()) / 1e6 for module in (model, backbone))
    cells = (
        Config.fromfile(config).model.backbone.arch,
        f'{img_size}²',
        ' / '.join(map(str, arch['embed_dims'])),
        ' / '.join(map(str, arch['depths'])),
        arch['num_heads'],
        ' / '.join(map(str, arch['mlp_ratios'])),
        f'{without:.2f}',
        f'{with_decoder:.2f}',
        f'{count_multiply_adds(dense, img_size) / 1e9:.2f}',
        f'{count_multiply_adds(model, img_size) / 1e9:.2f}',
    )
    return f'| {" | ".join(map(str, cells))} |'


def main() -> None:
    head = (
        'size',
        'image',
        'widths',
        'depths',
        'heads',
        'MLP ratios',
        'backbone, M',
        'with decoder, M',
        'dense, G',
        'visible, G',
    )
    print(f'| {" | ".join(head)} |')
    print(f'| {" | ".join(["---"] * len(head))} |')
    for config in parse_args().configs:
        print(table_row(config))


if __name__ == '__main__':
    main()
