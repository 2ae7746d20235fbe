from .convmae_pretrain_head import ConvMAEPretrainHead

__all__ = ['ConvMAEPretrainHead']
