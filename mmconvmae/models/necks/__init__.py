from .convmae_pretrain_decoder import ConvMAEPretrainDecoder
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['ConvMAEPretrainDecoder', 'SimpleFeaturePyramid']
