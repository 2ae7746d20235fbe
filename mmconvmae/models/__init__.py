from .backbones import ConvMAEViT, ConvViT, VideoConvMAEViT, VideoConvViT
from .classifiers import VideoClassifier
from .data_preprocessor import ImageDataPreprocessor
from .heads import ConvMAEPretrainHead
from .mask_generators import ComplementaryMaskGenerator, ConvMAEMask, ConvMAEMaskGenerator
from .necks import ConvMAEPretrainDecoder, SimpleFeaturePyramid
from .rivals import MIMDet
from .selfsup import ConvMAE

__all__ = [
    'ComplementaryMaskGenerator',
    'ConvMAE',
    'ConvMAEMask',
    'ConvMAEMaskGenerator',
    'ConvMAEPretrainDecoder',
    'ConvMAEPretrainHead',
    'ConvMAEViT',
    'ConvViT',
    'ImageDataPreprocessor',
    'MIMDet',
    'SimpleFeaturePyramid',
    'VideoClassifier',
    'VideoConvMAEViT',
    'VideoConvViT',
]
