from .convmae_mask_generator import ComplementaryMaskGenerator, ConvMAEMask, ConvMAEMaskGenerator

__all__ = ['ComplementaryMaskGenerator', 'ConvMAEMask', 'ConvMAEMaskGenerator']
