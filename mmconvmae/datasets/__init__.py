from .clip_sampling import DenseClip, DenseViews, SegmentClip, SegmentViews
from .clips import FormatClips, LoadClip, MultiScaleCrop, ThreeCrop
from .image_file import ImageFile, ImageFileError
from .image_folder import ImageFolder, find_images
from .loading import LoadRandomResizedCrop, LoadWholeImage
from .repeated_augmentation import RepeatedAugmentation, RepeatedSampler
from .seeded_sampling import SeededInfiniteSampler, SeedSample
from .video_file import VIDEO_SUFFIXES, VideoFile, VideoFileError
from .video_list import VideoList, find_videos
from .worker import EndWithParent, worker_init_fn

__all__ = [
    'VIDEO_SUFFIXES',
    'DenseClip',
    'DenseViews',
    'EndWithParent',
    'FormatClips',
    'ImageFile',
    'ImageFileError',
    'ImageFolder',
    'LoadClip',
    'LoadRandomResizedCrop',
    'LoadWholeImage',
    'MultiScaleCrop',
    'RepeatedAugmentation',
    'RepeatedSampler',
    'SeedSample',
    'SeededInfiniteSampler',
    'SegmentClip',
    'SegmentViews',
    'ThreeCrop',
    'VideoFile',
    'VideoFileError',
    'VideoList',
    'find_images',
    'find_videos',
    'worker_init_fn',
]
