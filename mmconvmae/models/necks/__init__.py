from .convmae_pretrain_decoder import ConvMAEPretrainDecoder, MultiScaleFusion
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['ConvMAEPretrainDecoder', 'MultiScaleFusion', 'SimpleFeaturePyramid']
