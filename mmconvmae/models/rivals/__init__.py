from .data2vec import Data2Vec, Data2VecHead
from .mimdet import MIMDet
from .resized_tables import ResizableBEiT, ResizableSwinTransformer
from .video_mae import VideoMAEViT

__all__ = ['Data2Vec', 'Data2VecHead', 'MIMDet', 'ResizableBEiT', 'ResizableSwinTransformer', 'VideoMAEViT']
