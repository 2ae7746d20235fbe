from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.utils import build_norm_layer
from torch import Tensor

from .attention import WindowAttention
from .relative_position import DecomposedBias, TableBias


class TransformerBlock(BaseModule):
    """Block of stage 3: a pre-norm ViT block (paper, section 3.1) with :class:`WindowAttention`.

    Args:
        embed_dims (int): Number of channels.
        num_heads (int): Number of attention heads.
        mlp_ratio (float): Width of the hidden layer of the MLP, as a multiple of ``embed_dims``. Defaults to 4.
        window_size (int): See :class:`WindowAttention`. Defaults to 0.
        rel_pos (BaseModule, optional): See :class:`WindowAttention`. Defaults to None.
        pad_windows (bool): See :class:`WindowAttention`. Defaults to False.
        layer_scale_init_value (float): Initial value of a learnable scale for each channel of both residual branches;
            0 for none. Defaults to 0.
        drop_path_rate (float): Stochastic depth rate of both residual branches. Defaults to 0.
        norm_cfg (dict): Norm layers. Defaults to ``dict(type='LN', eps=1e-6)``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4,
        window_size: int = 0,
        rel_pos: BaseModule | None = None,
        pad_windows: bool = False,
        layer_scale_init_value: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
    ) -> None:
        super().__init__()
        branch = dict(
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            layer_scale_init_value=layer_scale_init_value,
        )
        self.ln1 = build_norm_layer(norm_cfg, embed_dims)
        self.attn = WindowAttention(embed_dims, num_heads, window_size, rel_pos, pad_windows, **branch)
        self.ln2 = build_norm_layer(norm_cfg, embed_dims)
        self.ffn = FFN(embed_dims, round(embed_dims * mlp_ratio), act_cfg=dict(type='GELU'), **branch)

    def forward(self, x: Tensor, grid: tuple[int, int], positions: TableBias | DecomposedBias | None = None) -> Tensor:
        """Apply the block; see :meth:`WindowAttention.forward` for the arguments.

        Returns:
            Tensor: Shape (B, H * W, C).
        """
        x = x + self.attn(self.ln1(x), grid, positions)
        return self.ffn(self.ln2(x), identity=x)
