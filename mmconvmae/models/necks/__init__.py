from .convmae_pretrain_decoder import ConvMAEPretrainDecoder, MultiScaleFusion

__all__ = ['ConvMAEPretrainDecoder', 'MultiScaleFusion']
