import math

import torch
from mmpretrain.models.backbones import BEiTViT, SwinTransformer
from torch import Tensor

from mmconvmae.registry import MODELS

from ..layers import GridEmbedding


class ResizedTables:
    """Fits a checkpoint's tables of relative positions to windows of another size, bicubically by PyTorch.

    A base before a backbone of mmpretrain, whose own way needs a function that SciPy had up to 1.13. A table has a row
    for each offset in a square window, row by row, and at the end ``num_other_rows`` for the class token.
    """

    num_other_rows = 0

    def _prepare_relative_position_bias_table(
        self, state_dict: dict[str, Tensor], prefix: str, *args, **kwargs
    ) -> None:
        own = {name: x for name, x in self.state_dict().items() if name.endswith('relative_position_bias_table')}
        tables = [name for name in state_dict if name.endswith('relative_position_bias_table')]
        for name in tables:
            own_name = name.removeprefix(prefix)
            # A table that all layers of a checkpoint share becomes one of each.
            wanted = own.get(own_name, next(iter(own.values()), None))
            if wanted is None or len(wanted) == len(state_dict[name]):
                continue
            rows, others = state_dict[name].tensor_split([len(state_dict[name]) - self.num_other_rows])
            old, new = math.isqrt(len(rows)), math.isqrt(len(wanted) - self.num_other_rows)
            rows = GridEmbedding(rows, (old, old)).resize(rows, (old, old), (new, new))
            state_dict[name] = torch.cat([rows, others])
            if own_name in own:
                state_dict.pop(name.replace('bias_table', 'index'), None)  # every model makes its own
        super()._prepare_relative_position_bias_table(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class ResizableSwinTransformer(ResizedTables, SwinTransformer):
    """mmpretrain's Swin Transformer, which can start from a checkpoint with windows of another size.

    Args:
        *args: Arguments of mmpretrain's ``SwinTransformer``.
        **kwargs: The same.
    """


@MODELS.register_module()
class ResizableBEiT(ResizedTables, BEiTViT):
    """mmpretrain's BEiT, which can start from a checkpoint for images of another size.

    Args:
        *args: Arguments of mmpretrain's ``BEiTViT``.
        **kwargs: The same.
    """

    num_other_rows = 3
