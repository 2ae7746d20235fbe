"""Checks of people's own annotations, before a run builds its data sets."""

from .base import DataCheck
from .classification import ClassificationCheck, VideoClassificationCheck
from .coco import CocoCheck
from .segmentation import SegmentationCheck

__all__ = ['ClassificationCheck', 'CocoCheck', 'DataCheck', 'SegmentationCheck', 'VideoClassificationCheck']
