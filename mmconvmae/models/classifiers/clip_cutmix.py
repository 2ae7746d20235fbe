from mmpretrain.models.utils.batch_augments import CutMix
from mmpretrain.registry import BATCH_AUGMENTS
from torch import Tensor


@BATCH_AUGMENTS.register_module()
class ClipCutMix(CutMix):
    """mmpretrain's CutMix for clips: the same box in all frames, where its own would cut time and rows."""

    def mix(self, batch_inputs: Tensor, batch_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix clips and their classes.

        Args:
            batch_inputs (Tensor): Shape (B, C, T, H, W).
            batch_scores (Tensor): Scores of the classes, shape (B, num_classes).

        Returns:
            tuple[Tensor, Tensor]: Both, mixed.
        """
        mixed, scores = super().mix(batch_inputs.flatten(1, 2), batch_scores)
        return mixed.view_as(batch_inputs), scores
