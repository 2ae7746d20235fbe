from .arguments import add_backbone_arguments, load_by_arguments
from .backbone import LoadedBackbone, load_backbone
from .images import load_center_clips, load_center_crop, load_whole

__all__ = [
    'LoadedBackbone',
    'add_backbone_arguments',
    'load_backbone',
    'load_by_arguments',
    'load_center_clips',
    'load_center_crop',
    'load_whole',
]
