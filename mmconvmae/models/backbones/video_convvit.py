from torch import Tensor

from mmconvmae.registry import MODELS

from .convmae_vit import ConvMAEViT
from .convvit import ConvViT


@MODELS.register_module()
class VideoConvViT(ConvViT):
    """ConvViT for clips: every stage has a time axis, and attention is over space and time together.

    The paper gives results on videos (`MCMAE: Masked Convolution Meets Masked Autoencoders
    <https://arxiv.org/abs/2205.03892>`_, figure 3) and says little of the model, and its code was never released.
    Chosen here: ``tubelet_size`` frames become one before stage 1, and no later stage reduces time, so that a clip of
    16 frames of 224 x 224 pixels has 8 x 14 x 14 tokens, as in VideoMAE; depthwise kernels of 5 x 5 x 5; one learnable
    position embedding for each token. That makes the 86 M parameters that the paper reports.

    Clips may have any number of frames that ``tubelet_size`` divides, and any height and width that the total stride
    divides.

    Args:
        *args: Arguments of :class:`ConvViT`.
        num_frames (int): Frames of the usual clip; the position embedding is made for it and resized for others.
            Defaults to 16.
        tubelet_size (int): Frames that become one where a clip comes in. Defaults to 2.
        temporal_kernel_size (int): Length of the depthwise kernels in time, odd; with 1 frames meet in stage 3 alone.
            Defaults to 5.
        **kwargs: Arguments of :class:`ConvViT` but for windows, relative positions and a fourth level, which clips do
            not have. ``out_type`` gives ``'raw'`` tokens of shape (B, T * L, C), slot by slot, a ``'featmap'`` of shape
            (B, C, T, H, W), or the mean over all positions, (B, C).

    Raises:
        ValueError: If an argument is not one of the above.

    Examples:
        >>> import torch
        >>> from mmconvmae.models import VideoConvViT
        >>> backbone = VideoConvViT('tiny', img_size=64, num_frames=8, out_type='featmap').eval()
        >>> [tuple(level.shape) for level in backbone(torch.randn(1, 3, 8, 64, 64))]
        [(1, 192, 4, 4, 4)]
    """

    IMAGES_ALONE = ('window_size', 'global_attn_indexes', 'pad_windows', 'rel_pos', 'fourth_level')

    def __init__(
        self, *args, num_frames: int = 16, tubelet_size: int = 2, temporal_kernel_size: int = 5, **kwargs
    ) -> None:
        for name in self.IMAGES_ALONE:
            if kwargs.get(name):
                raise ValueError(
                    f'`{name}` is {kwargs[name]!r}, and {type(self).__name__} has neither windows nor relative '
                    f'positions nor a fourth level; leave `{name}` out.'
                )
        # What the stages are built from is there before them.
        self.num_frames, self.tubelet_size, self.temporal_kernel_size = num_frames, tubelet_size, temporal_kernel_size
        super().__init__(*args, **kwargs)

    def _usual_size(self, img_size: tuple[int, int]) -> tuple[int, int, int]:
        return self.num_frames, *img_size

    def _get_grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if self.tubelet_size < 1 or frames < 1 or frames % self.tubelet_size:
            raise ValueError(
                f'The clip has {frames} frames, which `tubelet_size`, {self.tubelet_size}, does not divide; take a '
                f'multiple of {self.tubelet_size} frames.'
            )
        return frames // self.tubelet_size, *super()._get_grid(height, width)


@MODELS.register_module()
class RecognizerConvViT(VideoConvViT):
    """VideoConvViT as mmaction2's ``Recognizer3D`` and ``I3DHead`` take it: one map, and no tuple around it.

    The map has one position, the mean over all, so that what the head makes of it is what :class:`VideoClassifier`'s
    head makes of the same weights. Parameters and their names are those of :class:`VideoConvViT`.

    Args:
        *args: Arguments of :class:`VideoConvViT`.
        **kwargs: Arguments of :class:`VideoConvViT` but for ``out_type`` and ``out_indices``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, out_type='avg_featmap', **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Compute features.

        Args:
            x (Tensor): Clips of shape (B, C, T, H, W).

        Returns:
            Tensor: Shape (B, C, 1, 1, 1).
        """
        (features,) = super().forward(x)
        return features[..., None, None, None]


@MODELS.register_module()
class VideoConvMAEViT(ConvMAEViT, VideoConvViT):
    """The masked encoder for clips: :class:`ConvMAEViT` with the time axis of :class:`VideoConvViT`.

    A mask is one of rows and columns, the same at all times: it removes tubes, as in `VideoMAE
    <https://arxiv.org/abs/2203.12602>`_. So a visible tube is a tile with a time axis, of which ``forward`` returns
    shapes (B, N, T, t1, t1, C1), (B, N, T, t2, t2, C2) and (B, N, T, C3). Parameters and their names are those of
    :class:`VideoConvViT`; the position embedding is fixed.
    """
