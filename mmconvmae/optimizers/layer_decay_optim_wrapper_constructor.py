from collections.abc import Callable
from functools import partial

import torch.nn as nn
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor

from mmconvmae.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise learning-rate decay, for detectors and segmentors too.

    mmpretrain asks the whole model for the depth of a parameter, which only its own models know; this asks the
    backbone, for which everything outside of it is of the last layer and has the full learning rate. Arguments and
    ``paramwise_cfg`` are mmpretrain's, but ``lr_mult`` of ``custom_keys`` counts, as in mmengine: what has one is in no
    layer, and its learning rate is the base one times ``lr_mult``.

    Raises:
        TypeError: If the model has no backbone with a ``get_layer_depth``.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable[[str], tuple[int, int]] | None = None,
        **kwargs,
    ) -> None:
        """Add the parameters of a module to the parameter groups.

        Args:
            params (list[dict]): The groups, changed in place.
            module (nn.Module): The model, or a part of it.
            prefix (str): Name of the part in the model, with a dot at the end. Defaults to ''.
            get_layer_depth (Callable, optional): Gives layer and number of layers for the name of a parameter. Defaults
                to None: that of the model's backbone.
        """
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise TypeError(
                    f'Layer-wise learning-rate decay needs a backbone that knows its layers, and the '
                    f'{type(backbone).__name__} of {type(module).__name__} has no `get_layer_depth`; use '
                    '`mmconvmae.ConvViT`, or leave `optim_wrapper.constructor` out.'
                )
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        first = len(params)
        super().add_params(params, module, prefix, get_layer_depth, **kwargs)
        for group in params[first:]:
            if 'lr_mult' in group:
                group.update(lr=self.base_lr * group['lr_mult'], lr_scale=group['lr_mult'])
