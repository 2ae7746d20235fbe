from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.structures import DataSample
from torch import Tensor

from mmconvmae.registry import MODELS
from mmconvmae.utils import check_integer, check_number


@MODELS.register_module()
class Data2Vec(BaseSelfSupervisor):
    """data2vec for images, a rival in pretraining: a student predicts what its own average makes of the whole image.

    The student is given mask tokens in place of the removed patches. The teacher, an exponential moving average of the
    student, sees all patches; the mean of what its last blocks give, each normalised, is the target at the removed
    ones. See section 3 of `data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language
    <https://arxiv.org/abs/2202.03555>`_.

    The teacher takes each step of the student into its average when the next batch comes, so that targets are those of
    an average brought up to date after each step.

    Args:
        backbone (dict): Config of a backbone that takes images of shape (B, C, H, W) and a mask of shape (B, H', W'),
            or None, and gives the tokens of several blocks, before any final norm, as tensors of shape (B, 1 + L, D)
            that begin with a class token: mmpretrain's ``BEiTPretrainViT``, whose ``out_indices`` are then the blocks
            that targets come from. The last of them is what the head is given.
        head (dict): Config of the head, such as :class:`Data2VecHead`.
        momentum (float): Share of the student that enters the average in each step. Defaults to 2e-4.
        **kwargs: Other arguments of mmpretrain's ``BaseSelfSupervisor``.

    Raises:
        ValueError: If ``momentum`` is not between 0 and 1.
    """

    def __init__(self, backbone: dict, head: dict, momentum: float = 2e-4, **kwargs) -> None:
        super().__init__(backbone=backbone, head=head, **kwargs)
        check_number('momentum', momentum, 0, 1)
        self.teacher = ExponentialMovingAverage(self.backbone, momentum=momentum)

    def train(self, mode: bool = True) -> 'Data2Vec':
        """Set the training mode of the student; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def compute_target(self, inputs: Tensor) -> Tensor:
        """What the teacher makes of whole images.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W).

        Returns:
            Tensor: Shape (B, L, D), float32: the mean over blocks of their outputs, each normalised over the channels,
            without a learnt scale, and normalised once more.
        """
        tokens = [x[:, 1:].float() for x in self.teacher(inputs, None)]
        normalised = [F.layer_norm(x, x.shape[-1:]) for x in tokens]
        mean = torch.stack(normalised).mean(0)
        return F.layer_norm(mean, mean.shape[-1:])

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Compute the loss, and take what the student has learnt into the teacher's average.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W).
            data_samples (list[DataSample]): Have each a ``mask``, shape (H', W'), 1 at removed patches.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.
        """
        if self.training:
            self.teacher.update_parameters(self.backbone)
        mask = torch.stack([sample.mask for sample in data_samples])
        target = self.compute_target(inputs)
        return dict(loss=self.head.loss(self.backbone(inputs, mask)[-1], target, mask))


@MODELS.register_module()
class Data2VecHead(BaseModule):
    """Predict the teacher's target at removed patches: a norm and a linear layer.

    Args:
        embed_dims (int): Number of channels of tokens and targets. Defaults to 768.
        beta (float): Distance up to which the smooth L1 loss is quadratic. Defaults to 2.0.
        norm_cfg (dict): The norm. Defaults to ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict | list[dict], optional): Initialisation config. Defaults to a truncated normal of deviation 0.02
            without bias.

    Raises:
        ValueError: If an argument is not one of the above.
    """

    def __init__(
        self,
        embed_dims: int = 768,
        beta: float = 2.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        init_cfg: dict | Sequence[dict] | None = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0),
    ) -> None:
        super().__init__(init_cfg)
        check_integer('embed_dims of the head', embed_dims)
        check_number('beta', beta, 1e-6)
        self.norm = build_norm_layer(norm_cfg, embed_dims)
        self.fc = nn.Linear(embed_dims, embed_dims)
        self.beta = beta

    def loss(self, tokens: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Compute the smooth L1 loss.

        Args:
            tokens (Tensor): The student's, a class token first, shape (B, 1 + L, D).
            target (Tensor): Shape (B, L, D).
            mask (Tensor): 1 at removed patches, shape (B, H', W').

        Returns:
            Tensor: The mean over removed patches and channels, a scalar.
        """
        removed = mask.flatten(1).bool()
        prediction = self.fc(self.norm(tokens[:, 1:][removed]))
        return F.smooth_l1_loss(prediction.float(), target[removed], beta=self.beta)
