from collections.abc import Sequence

import torch
from mmpretrain.models.utils import ClsDataPreprocessor, SelfSupDataPreprocessor

from mmconvmae.registry import MODELS


@MODELS.register_module()
class ImageDataPreprocessor(SelfSupDataPreprocessor):
    """Normalise images of any number of channels; mmpretrain's takes 1 or 3.

    Args:
        mean (Sequence[float]): Of each channel, in the units of the images.
        std (Sequence[float]): Of each channel.
        to_rgb (bool): Whether three channels come blue first, as mmcv has them, and the mean is given red first. Other
            numbers of channels are left in their order. Defaults to True.
        non_blocking (bool): Whether to copy to the device asynchronously. Defaults to False.

    Raises:
        ValueError: If mean and std are of different length, or a std is not positive.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], to_rgb: bool = True, non_blocking: bool = False
    ) -> None:
        if len(mean) != len(std):
            raise ValueError(f'mean has {len(mean)} values and std {len(std)}; give one of each for each channel.')
        if min(std) <= 0:
            raise ValueError(f'std is {list(std)}; give positive values (1 for a channel that is constant).')
        super().__init__(to_rgb=to_rgb and len(mean) == 3, non_blocking=non_blocking)
        self._enable_normalize = True
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise a batch.

        Args:
            data (dict): Has ``inputs`` (B, C, H, W), of any type of number.
            training (bool): Not used.

        Returns:
            dict: ``inputs`` (B, C, H, W), float32, on the device, and ``data_samples``.

        Raises:
            ValueError: If the images have not as many channels as the mean, or their values cannot belong to it.
        """
        inputs = data['inputs']
        if inputs.shape[1] != len(self.mean):
            raise ValueError(
                f'The images have {inputs.shape[1]} channels, and mean of the data preprocessor {len(self.mean)}; '
                'give one value of mean and std for each channel (tools/analysis_tools/scan_images.py prints them).'
            )
        data = super().forward(data, training)
        # 8 bits fit any mean that was measured on 8 bits; other depths have units of their own.
        if inputs.dtype != torch.uint8 and data['inputs'].abs().mean() > 50:
            mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
            raise ValueError(
                f'The images have values of {inputs.float().mean():.4g} in the mean, which mean={mean} and '
                f'std={std} of the data preprocessor do not fit; give them in the units of the files '
                '(tools/analysis_tools/scan_images.py prints them), or load with full_scale=255.'
            )
        return data


@MODELS.register_module()
class ClipDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's preprocessor of labelled images, for clips with labels or without.

    Args:
        mean (Sequence[float]): Of each channel, red first.
        std (Sequence[float]): Of each channel.
        to_rgb (bool): Whether clips come blue first, as :class:`LoadClip` gives them. Defaults to True.
        **kwargs: Arguments of mmpretrain's ``ClsDataPreprocessor``: ``num_classes`` and others.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_rgb: bool = True, **kwargs) -> None:
        super().__init__(mean, std, to_rgb=to_rgb, **kwargs)
        self.mean, self.std = self.mean[..., None], self.std[..., None]  # (C, 1, 1, 1)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise a batch, and mix it where the model asks for that.

        Args:
            data (dict): Has ``inputs`` (B, C, T, H, W), or several views of each video (B, views, C, T, H, W), and
                ``data_samples``.
            training (bool): Whether to mix.

        Returns:
            dict: The same, float32 and on the device.
        """
        if data['inputs'].dim() == 5:
            return super().forward(data, training)
        views = super().forward(dict(inputs=data['inputs'].flatten(0, 1)))['inputs']
        return dict(data, inputs=views.unflatten(0, data['inputs'].shape[:2]))
