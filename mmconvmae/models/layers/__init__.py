from .conv_block import ConvBlock
from .patch_embed import PatchConv2d, PatchEmbed, cut_tiles, gather_tiles, join_tiles
from .position_embedding import PositionEmbedding, sincos_position_embedding
from .tile_conv import DepthwiseConv2d, TileIndex

__all__ = [
    'ConvBlock',
    'DepthwiseConv2d',
    'PatchConv2d',
    'PatchEmbed',
    'PositionEmbedding',
    'TileIndex',
    'cut_tiles',
    'gather_tiles',
    'join_tiles',
    'sincos_position_embedding',
]
