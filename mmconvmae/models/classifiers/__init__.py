from .video_classifier import VideoClassifier

__all__ = ['VideoClassifier']
