from .convmae_vit import ConvMAEViT
from .convvit import ConvViT
from .video_convvit import VideoConvMAEViT, VideoConvViT

__all__ = ['ConvMAEViT', 'ConvViT', 'VideoConvMAEViT', 'VideoConvViT']
