import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor

from mmconvmae.registry import MODELS, TASK_UTILS

from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAE(BaseSelfSupervisor):
    """ConvMAE pretraining.

    An implementation of `MCMAE: Masked Convolution Meets Masked Autoencoders <https://arxiv.org/abs/2205.03892>`_.
    ``extract_feat`` gives the backbone's features of whole images.

    Args:
        mask_generator (dict): Config of the mask generator. Defaults to
            ``dict(type='mmconvmae.ConvMAEMaskGenerator')``.
        **kwargs: Arguments of mmpretrain's ``BaseSelfSupervisor``: ``backbone`` (:class:`ConvMAEViT`), ``neck``
            (:class:`ConvMAEPretrainDecoder`), ``head`` (:class:`ConvMAEPretrainHead`), ``data_preprocessor``,
            ``init_cfg``.
    """

    def __init__(self, *args, mask_generator: dict = dict(type='mmconvmae.ConvMAEMaskGenerator'), **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.mask_generator = TASK_UTILS.build(mask_generator)

    def generate_mask(self, inputs: Tensor) -> ConvMAEMask:
        """Draw masks for a batch of images.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W).

        Returns:
            ConvMAEMask: The masks.
        """
        return self.mask_generator(len(inputs), self.backbone.get_grid(inputs), inputs.device)

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Compute the pretraining loss.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W).
            data_samples (list[DataSample]): Not used.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.
        """
        mask = self.generate_mask(inputs)
        feats = self.backbone(inputs, mask)
        pred = self.neck(feats, mask)
        return dict(loss=self.head.loss(pred, inputs, mask))

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, mask: ConvMAEMask | None = None) -> tuple[Tensor, Tensor]:
        """Remove parts of images and let the model fill them in.

        Args:
            inputs (Tensor): Preprocessed images of shape (B, C, H, W).
            mask (ConvMAEMask, optional): What to remove. Defaults to None: a random mask.

        Returns:
            tuple[Tensor, Tensor]: The reconstruction of every patch, visible ones too, as images of shape
            (B, C, H, W) in the range of ``inputs``; and where something was removed, shape (B, 1, H, W), bool.
        """
        if mask is None:
            mask = self.generate_mask(inputs)
        pred = self.neck(self.backbone(inputs, mask), mask, all_patches=True)
        images = self.head.reconstruct(pred, inputs, mask.grid)
        scale = images.shape[-1] // mask.removed.shape[-1]
        removed = mask.removed.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        return images, removed.unsqueeze(1)
