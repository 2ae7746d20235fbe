from collections.abc import Sequence

import torch
import torch.nn as nn
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor

from mmconvmae.registry import MODELS, TASK_UTILS
from mmconvmae.utils import check_config

from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAE(BaseSelfSupervisor):
    """ConvMAE pretraining.

    An implementation of `MCMAE: Masked Convolution Meets Masked Autoencoders <https://arxiv.org/abs/2205.03892>`_.
    ``extract_feat`` gives the backbone's features of whole images.

    Neck and head follow the backbone: its widths, patch sizes, image size, channels and frames are read off it.

    Args:
        backbone (dict | nn.Module): Config of a :class:`ConvMAEViT` or :class:`VideoConvMAEViT`, or one.
        neck (dict | nn.Module, optional): Config of the neck, a :class:`ConvMAEPretrainDecoder` or another that takes
            ``encoder_dims``, ``patch_sizes``, ``img_size``, ``in_channels``, ``num_frames`` and ``tubelet_size`` and
            has a ``predict_ratio``. Defaults to None.
        head (dict | nn.Module, optional): Config of the head, a :class:`ConvMAEPretrainHead` or another that takes
            ``patch_size``, ``in_channels`` and ``tubelet_size``. Defaults to None.
        mask_generator (dict): Config of the mask generator. With a :class:`ComplementaryMaskGenerator` a step trains on
            several views of each image, which is loaded once. Defaults to
            ``dict(type='mmconvmae.ConvMAEMaskGenerator')``.
        **kwargs: Arguments of mmpretrain's ``BaseSelfSupervisor``: ``data_preprocessor``, ``pretrained``, ``init_cfg``.

    Raises:
        ValueError: If the config of neck or head contradicts the backbone.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import ConvMAE
        >>> model = ConvMAE(
        ...     backbone=dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=64),
        ...     neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=64, depth=1, num_heads=4),
        ...     head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        ... )
        >>> images = torch.randn(2, 3, 64, 64)
        >>> model.loss(images, None)['loss'].shape
        torch.Size([])
        >>> reconstruction, removed = model.reconstruct(images)
        >>> reconstruction.shape, removed.float().mean().item()
        (torch.Size([2, 3, 64, 64]), 0.75)
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        mask_generator: dict = dict(type='mmconvmae.ConvMAEMaskGenerator'),
        **kwargs,
    ) -> None:
        check_config('backbone', backbone)
        check_config('mask_generator', mask_generator)
        for name, part in dict(neck=neck, head=head).items():
            if part is not None:
                check_config(name, part)
        if isinstance(backbone, dict):
            backbone = MODELS.build(backbone)
        if isinstance(neck, dict):
            neck = _follow(
                neck,
                'neck',
                encoder_dims=backbone.embed_dims,
                patch_sizes=backbone.patch_sizes,
                img_size=backbone.img_size,
                in_channels=backbone.in_channels,
                num_frames=backbone.num_frames,
                tubelet_size=backbone.tubelet_size,
            )
        if isinstance(head, dict):
            head = _follow(
                head,
                'head',
                patch_size=backbone.stride,
                in_channels=backbone.in_channels,
                tubelet_size=backbone.tubelet_size,
            )
        super().__init__(backbone, neck, head, **kwargs)
        self.mask_generator = TASK_UTILS.build(mask_generator)

    def generate_mask(self, inputs: Tensor) -> ConvMAEMask:
        """Draw masks for a batch of images.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W), or clips of shape (B, C, T, H, W), whose masks are the same
                at all times.

        Returns:
            ConvMAEMask: The masks, one or several for each image.
        """
        return self.mask_generator(len(inputs), self.backbone.get_grid(inputs)[-2:], inputs.device)

    def loss(self, inputs: Tensor, data_samples: list[DataSample], **kwargs) -> dict[str, Tensor]:
        """Compute the pretraining loss, the mean over all masks.

        Args:
            inputs (Tensor): Images of shape (B, C, H, W), or clips of shape (B, C, T, H, W).
            data_samples (list[DataSample]): Not used.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.

        Raises:
            ValueError: Without neck or head.
        """
        if self.neck is None or self.head is None:
            raise ValueError('Pretraining needs a `neck` and a `head`, and the model has not both; give their configs.')
        mask = self.generate_mask(inputs)
        feats = self.backbone(inputs, mask)
        mask = mask.predict_share(self.neck.predict_ratio)
        pred = self.neck(feats, mask)
        return dict(loss=self.head.loss(pred, inputs, mask))

    @torch.no_grad()
    def reconstruct(self, inputs: Tensor, mask: ConvMAEMask | None = None) -> tuple[Tensor, Tensor]:
        """Remove parts of images and let the model fill them in.

        Args:
            inputs (Tensor): Preprocessed images of shape (B, C, H, W), or clips of shape (B, C, T, H, W).
            mask (ConvMAEMask, optional): What to remove, one mask for each image. Defaults to None: a random one.

        Returns:
            tuple[Tensor, Tensor]: The reconstruction of every patch, visible ones too, as images of shape
            (B, C, H, W) in the range of ``inputs``; and where something was removed, shape (B, 1, H, W), bool. Of
            clips (B, C, T, H, W) and (B, 1, 1, H, W).
        """
        if mask is None:
            mask = self.generate_mask(inputs).first_view(len(inputs))
        pred = self.neck(self.backbone(inputs, mask), mask, all_patches=True)
        images = self.head.reconstruct(pred, inputs, mask.grid)
        scale = images.shape[-1] // mask.removed.shape[-1]
        removed = mask.removed.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        removed = removed.unsqueeze(1)  # (B, 1, H, W)
        return images, removed if images.dim() == 4 else removed.unsqueeze(2)


def _follow(config: dict, part: str, **facts) -> dict:
    """Add to the config of a part what it takes from the backbone, and refuse what contradicts that."""
    for name, fact in facts.items():
        given = config.get(name, fact)
        if isinstance(fact, tuple):
            given = tuple(given) if isinstance(given, Sequence) else (given,) * len(fact)
        if given != fact:
            raise ValueError(
                f'`{name}` of the {part} is {config[name]}, and that of the backbone says {fact}; leave it out, since '
                f'the {part} follows the backbone, or change the backbone.'
            )
    return dict(config, **facts)
