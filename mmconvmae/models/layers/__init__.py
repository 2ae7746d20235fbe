from .attention import DecomposedRelativePosition, RelativePositionBias, TransformerBlock, WindowAttention
from .conv_block import ConvBlock
from .grid_embedding import GridEmbedding
from .padding import unpadded_sizes
from .patch_embed import PatchConv2d, PatchEmbed, cut_tiles, gather_tiles, join_tiles
from .position_embedding import PositionEmbedding, sincos_position_embedding
from .tile_conv import DepthwiseConv2d, TileIndex

__all__ = [
    'ConvBlock',
    'DecomposedRelativePosition',
    'DepthwiseConv2d',
    'GridEmbedding',
    'PatchConv2d',
    'PatchEmbed',
    'PositionEmbedding',
    'RelativePositionBias',
    'TileIndex',
    'TransformerBlock',
    'WindowAttention',
    'cut_tiles',
    'gather_tiles',
    'join_tiles',
    'sincos_position_embedding',
    'unpadded_sizes',
]
