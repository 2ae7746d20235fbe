from .attention import WindowAttention
from .capture import captures_graph
from .conv_block import ConvBlock
from .grid_embedding import GridEmbedding
from .multi_scale_fusion import MultiScaleFusion
from .patch_embed import PatchConv2d, PatchEmbed, cut_tiles, from_maps, join_tiles, take_blocks, to_maps
from .position_embedding import PositionEmbedding, SinCosPositionEmbedding, sincos_position_embedding
from .relative_position import DecomposedRelativePosition, RelativePositionBias
from .stage import ConvStage, Stage, TransformerStage
from .tile_conv import DepthwiseConv2d, DepthwiseConv3d, TileIndex
from .transformer_block import TransformerBlock

__all__ = [
    'ConvBlock',
    'ConvStage',
    'DecomposedRelativePosition',
    'DepthwiseConv2d',
    'DepthwiseConv3d',
    'GridEmbedding',
    'MultiScaleFusion',
    'PatchConv2d',
    'PatchEmbed',
    'PositionEmbedding',
    'RelativePositionBias',
    'SinCosPositionEmbedding',
    'Stage',
    'TileIndex',
    'TransformerBlock',
    'TransformerStage',
    'WindowAttention',
    'captures_graph',
    'cut_tiles',
    'from_maps',
    'join_tiles',
    'sincos_position_embedding',
    'take_blocks',
    'to_maps',
]
