from .backbones import ConvMAEViT, ConvViT
from .data_preprocessor import ImageDataPreprocessor
from .heads import ConvMAEPretrainHead
from .mask_generators import ConvMAEMask, ConvMAEMaskGenerator
from .necks import ConvMAEPretrainDecoder, SimpleFeaturePyramid
from .selfsup import ConvMAE

__all__ = [
    'ConvMAE',
    'ConvMAEMask',
    'ConvMAEMaskGenerator',
    'ConvMAEPretrainDecoder',
    'ConvMAEPretrainHead',
    'ConvMAEViT',
    'ConvViT',
    'ImageDataPreprocessor',
    'SimpleFeaturePyramid',
]
