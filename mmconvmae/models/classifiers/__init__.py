from .clip_cutmix import ClipCutMix
from .video_classifier import VideoClassifier

__all__ = ['ClipCutMix', 'VideoClassifier']
