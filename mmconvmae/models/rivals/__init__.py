from .data2vec import Data2Vec, Data2VecHead
from .mimdet import MIMDet
from .resized_tables import ResizableBEiT, ResizableSwinTransformer

__all__ = ['Data2Vec', 'Data2VecHead', 'MIMDet', 'ResizableBEiT', 'ResizableSwinTransformer']
