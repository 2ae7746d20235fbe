import torch
from mmpretrain.models.heads import MAEPretrainHead
from torch import Tensor

from mmconvmae.registry import MODELS

from ..layers import cut_tiles, join_tiles
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAEPretrainHead(MAEPretrainHead):
    """Target, normalisation and loss of ConvMAE pretraining (paper, section 3.2).

    mmpretrain's MAE head for images of any shape, with the loss computed on removed parts only.

    Args:
        patch_size (int): Edge of a patch, in pixels: the total stride of the encoder. :class:`ConvMAE` reads this and
            the next off its backbone.
        in_channels (int): Number of image channels.
        loss (dict): Config of the loss module. Defaults to the mean squared error,
            ``dict(type='PixelReconstructionLoss', criterion='L2')``.
        norm_pix (bool): Whether each target patch is normalised by its own mean and variance. Defaults to True.
    """

    def __init__(
        self,
        patch_size: int,
        in_channels: int,
        loss: dict = dict(type='PixelReconstructionLoss', criterion='L2'),
        norm_pix: bool = True,
    ) -> None:
        super().__init__(loss, norm_pix, patch_size, in_channels)

    def patchify(self, imgs: Tensor) -> Tensor:
        """Cut images into patches.

        Args:
            imgs (Tensor): Shape (B, C, H, W); the patch size divides H and W.

        Returns:
            Tensor: Patches row by row, each in the order (row, column, channel), shape (B, L, patch_size² * C).
        """
        return cut_tiles(imgs.permute(0, 2, 3, 1), self.patch_size).flatten(2)

    def unpatchify(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Put patches together into images: the inverse of :meth:`patchify`.

        Args:
            x (Tensor): Shape (B, L, patch_size² * C).
            grid (tuple[int, int]): Rows and columns of patches.

        Returns:
            Tensor: Shape (B, C, H, W).
        """
        tiles = x.unflatten(2, (self.patch_size, self.patch_size, self.in_channels))
        return join_tiles(tiles, grid).permute(0, 3, 1, 2)

    def patch_statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """What ``norm_pix`` takes out of patches: brightness and contrast.

        Args:
            patches (Tensor): Shape (B, L, patch_size² * C).

        Returns:
            tuple[Tensor, Tensor]: Mean and deviation of each, shape (B, L, 1) both.
        """
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + 1e-6).sqrt()

    def loss(self, pred: Tensor, target: Tensor, mask: ConvMAEMask) -> Tensor:
        """Mean squared error over what was removed.

        Args:
            pred (Tensor): Predicted patches in the order of ``mask.ids_predict``, (B, M, patch_size² * C).
            target (Tensor): Images of shape (B, C, H, W).
            mask (ConvMAEMask): The mask.

        Returns:
            Tensor: The loss, a scalar.
        """
        ids = mask.ids_predict[..., None]
        target = self.construct_target(target).take_along_dim(ids, 1)  # (B, M, P)
        if mask.is_block_wise:
            return self.loss_module(pred, target)
        # Only the removed cells of each patch count.
        removed = mask.removed.unsqueeze(1)  # (B, 1, rows * s, columns * s)
        scale = self.patch_size * mask.grid[0] // removed.shape[2]
        removed = removed.repeat_interleave(scale, 2).repeat_interleave(scale, 3)  # (B, 1, H, W)
        weights = self.patchify(removed.expand(-1, self.in_channels, -1, -1)).take_along_dim(ids, 1)
        return self.loss_module(pred.flatten(), target.flatten(), weights.flatten().to(target.dtype))

    def reconstruct(self, pred: Tensor, imgs: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn predictions into images.

        Args:
            pred (Tensor): Predictions of all patches, row by row, (B, L, patch_size² * C).
            imgs (Tensor): The images, of shape (B, C, H, W). With ``norm_pix`` a prediction is relative to the mean
                and deviation of its patch, which are taken from here.
            grid (tuple[int, int]): Rows and columns of patches.

        Returns:
            Tensor: Shape (B, C, H, W), in the range of ``imgs``.
        """
        if self.norm_pix:
            mean, deviation = self.patch_statistics(self.patchify(imgs))
            pred = pred * deviation + mean
        return self.unpatchify(pred, grid)
