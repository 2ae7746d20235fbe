import torch
from mmpretrain.models.heads import MAEPretrainHead
from torch import Tensor

from mmconvmae.registry import MODELS

from ..layers import cut_tiles, from_maps, join_tiles, take_blocks, to_maps
from ..mask_generators import ConvMAEMask


@MODELS.register_module()
class ConvMAEPretrainHead(MAEPretrainHead):
    """Target, normalisation and loss of ConvMAE pretraining (paper, section 3.2).

    mmpretrain's MAE head for images of any shape, and for clips, with the loss computed on removed parts only. A patch
    of a clip is a cube of ``tubelet_size`` frames.

    Args:
        patch_size (int): Edge of a patch, in pixels: the total stride of the encoder. :class:`ConvMAE` reads this, the
            next and ``tubelet_size`` off its backbone.
        in_channels (int): Number of image channels.
        loss (dict): Config of the loss module. Defaults to the mean squared error,
            ``dict(type='PixelReconstructionLoss', criterion='L2')``.
        norm_pix (bool | str): Whether each target patch is normalised by its own mean and variance; with
            ``'channel'`` each channel of a patch is, as in VideoMAE. Defaults to True.
        tubelet_size (int): Frames of a patch. Defaults to 1, as images have it.

    Raises:
        ValueError: If ``norm_pix`` is none of these.
    """

    def __init__(
        self,
        patch_size: int,
        in_channels: int,
        loss: dict = dict(type='PixelReconstructionLoss', criterion='L2'),
        norm_pix: bool | str = True,
        tubelet_size: int = 1,
    ) -> None:
        if norm_pix not in (True, False, 'channel'):
            raise ValueError(f"`norm_pix` is {norm_pix!r}; choose one of True, False, 'channel'.")
        super().__init__(loss, norm_pix, patch_size, in_channels)
        self.tubelet_size = tubelet_size

    def patchify(self, imgs: Tensor) -> Tensor:
        """Cut images into patches.

        Args:
            imgs (Tensor): Shape (B, C, H, W), or clips of shape (B, C, T, H, W); the patch size divides H and W, and
                the tubelet size T.

        Returns:
            Tensor: Patches row by row, each in the order (row, column, channel), shape (B, L, patch_size² * C). Those
            of clips are in the order (row, column, frame, channel), shape
            (B, L, T / tubelet_size, patch_size² * tubelet_size * C).
        """
        return cut_tiles(to_maps(imgs, self.tubelet_size), self.patch_size).flatten(-3)

    def unpatchify(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Put patches together into images: the inverse of :meth:`patchify`.

        Args:
            x (Tensor): Shape (B, L, patch_size² * C), or (B, L, T / tubelet_size, patch_size² * tubelet_size * C).
            grid (tuple[int, int]): Rows and columns of patches.

        Returns:
            Tensor: Shape (B, C, H, W), or (B, C, T, H, W).
        """
        maps = join_tiles(x.unflatten(-1, (self.patch_size, self.patch_size, -1)), grid)
        return from_maps(maps, self.tubelet_size)

    def construct_target(self, target: Tensor) -> Tensor:
        """Cut images into patches and normalise these as ``norm_pix`` says.

        Args:
            target (Tensor): Shape (B, C, H, W), or clips of shape (B, C, T, H, W).

        Returns:
            Tensor: As :meth:`patchify`.
        """
        if self.norm_pix != 'channel':
            return super().construct_target(target)
        pixels = self.patchify(target).unflatten(-1, (-1, self.in_channels))
        mean, deviation = self._channel_statistics(pixels)
        return ((pixels - mean) / deviation).flatten(-2)

    def patch_statistics(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """What ``norm_pix`` takes out of patches: brightness and contrast.

        Args:
            patches (Tensor): Shape (B, L, P), or (B, L, T, P), as :meth:`patchify` gives them.

        Returns:
            tuple[Tensor, Tensor]: Mean and deviation of each patch, shape (B, L, 1) or (B, L, T, 1) both; of each
            channel of it, repeated for every pixel, the shape of ``patches``.
        """
        if self.norm_pix == 'channel':
            pixels = patches.unflatten(-1, (-1, self.in_channels))
            return tuple(x.expand_as(pixels).flatten(-2) for x in self._channel_statistics(pixels))
        var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return mean, (var + 1e-6).sqrt()

    @staticmethod
    def _channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel, (\\*, 1, C) both, of pixels of shape (\\*, pixels, C)."""
        var, mean = torch.var_mean(pixels, dim=-2, keepdim=True)
        # The small number is added to the deviation, as VideoMAE has it, and not to the variance.
        return mean, var.sqrt() + 1e-6

    def loss(self, pred: Tensor, target: Tensor, mask: ConvMAEMask) -> Tensor:
        """Mean squared error over what was removed and is to be predicted.

        Args:
            pred (Tensor): Predicted patches in the order of ``mask.ids_predict``, (B, M, patch_size² * C); of clips
                (B, M, T, P), as :meth:`patchify` gives them.
            target (Tensor): Images of shape (images, C, H, W), or clips of shape (clips, C, T, H, W).
            mask (ConvMAEMask): The masks, as many for each image.

        Returns:
            Tensor: The loss, a scalar.
        """
        target = take_blocks(self.construct_target(target), mask.ids_predict)  # (B, M, [T,] P)
        if mask.is_block_wise:
            return self.loss_module(pred, target)
        # Only the removed cells of each patch count.
        removed = mask.removed.unsqueeze(1)  # (B, 1, rows * s, columns * s)
        scale = self.patch_size * mask.grid[0] // removed.shape[2]
        removed = removed.repeat_interleave(scale, 2).repeat_interleave(scale, 3)  # (B, 1, H, W)
        removed = removed.expand(-1, self.in_channels, -1, -1)
        if target.dim() == 4:
            removed = removed.unsqueeze(2).expand(-1, -1, self.tubelet_size, -1, -1)  # the same at all times
        weights = take_blocks(self.patchify(removed), mask.ids_predict).expand_as(target)
        return self.loss_module(pred.flatten(), target.flatten(), weights.flatten().to(target.dtype))

    def reconstruct(self, pred: Tensor, imgs: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn predictions into images.

        Args:
            pred (Tensor): Predictions of all patches, row by row, (B, L, patch_size² * C); of clips (B, L, T, P), as
                :meth:`patchify` gives them.
            imgs (Tensor): The images, of shape (B, C, H, W), or clips of shape (B, C, T, H, W). With ``norm_pix`` a
                prediction is relative to the mean and deviation of its patch, which are taken from here.
            grid (tuple[int, int]): Rows and columns of patches.

        Returns:
            Tensor: The shape of ``imgs``, in their range.
        """
        if self.norm_pix:
            mean, deviation = self.patch_statistics(self.patchify(imgs))
            pred = pred * deviation + mean
        return self.unpatchify(pred, grid)
