from .convmae_vit import ConvMAEViT
from .convvit import ConvViT

__all__ = ['ConvMAEViT', 'ConvViT']
