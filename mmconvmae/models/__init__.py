from .backbones import ConvMAEViT, ConvViT, RecognizerConvViT, VideoConvMAEViT, VideoConvViT
from .classifiers import ClipCutMix, VideoClassifier
from .data_preprocessor import ClipDataPreprocessor, ImageDataPreprocessor
from .heads import ConvMAEPretrainHead
from .mask_generators import ComplementaryMaskGenerator, ConvMAEMask, ConvMAEMaskGenerator
from .necks import ConvMAEPretrainDecoder, SimpleFeaturePyramid
from .rivals import Data2Vec, Data2VecHead, MIMDet, ResizableBEiT, ResizableSwinTransformer, VideoMAEViT
from .selfsup import ConvMAE

__all__ = [
    'ClipCutMix',
    'ClipDataPreprocessor',
    'ComplementaryMaskGenerator',
    'ConvMAE',
    'ConvMAEMask',
    'ConvMAEMaskGenerator',
    'ConvMAEPretrainDecoder',
    'ConvMAEPretrainHead',
    'ConvMAEViT',
    'ConvViT',
    'Data2Vec',
    'Data2VecHead',
    'ImageDataPreprocessor',
    'MIMDet',
    'RecognizerConvViT',
    'ResizableBEiT',
    'ResizableSwinTransformer',
    'SimpleFeaturePyramid',
    'VideoClassifier',
    'VideoConvMAEViT',
    'VideoConvViT',
    'VideoMAEViT',
]
