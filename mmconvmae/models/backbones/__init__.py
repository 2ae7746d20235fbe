from .convmae_vit import ConvMAEViT
from .convvit import ConvViT
from .video_convvit import RecognizerConvViT, VideoConvMAEViT, VideoConvViT

__all__ = ['ConvMAEViT', 'ConvViT', 'RecognizerConvViT', 'VideoConvMAEViT', 'VideoConvViT']
