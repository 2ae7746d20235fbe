from .convmae_mask_generator import ConvMAEMask, ConvMAEMaskGenerator

__all__ = ['ConvMAEMask', 'ConvMAEMaskGenerator']
