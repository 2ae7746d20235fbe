import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor

from mmconvmae.registry import MODELS


@MODELS.register_module()
class VideoClassifier(ImageClassifier):
    """mmpretrain's classifier for clips, of which a test may have several views.

    Views are clips of one video: several stretches of it, and several crops of each. Their probabilities are averaged.
    """

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...]:
        """Compute features, of several views their mean.

        Args:
            inputs (Tensor): Clips of shape (B, C, T, H, W), or several views of each video, (B, views, C, T, H, W),
                which go through the model one after the other.
            stage (str): Of what: 'backbone', 'neck' or 'pre_logits'. Defaults to 'neck'.

        Returns:
            tuple[Tensor, ...]: The features.
        """
        if inputs.dim() == 5:
            return super().extract_feat(inputs, stage)
        views = [super(VideoClassifier, self).extract_feat(view, stage) for view in inputs.unbind(1)]
        return tuple(torch.stack(outputs).mean(0) for outputs in zip(*views))

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None, **kwargs) -> list[DataSample]:
        """Predict the classes of videos.

        Args:
            inputs (Tensor): Clips of shape (B, C, T, H, W), or several views of each video,
                (B, views, C, T, H, W), which go through the model one after the other.
            data_samples (list[DataSample], optional): Where the predictions are put. Defaults to None: into new ones.
            **kwargs: Arguments of the head's ``predict``, for single clips.

        Returns:
            list[DataSample]: With ``pred_score``, the probabilities of the classes, and ``pred_label``.
        """
        if inputs.dim() == 5:
            return super().predict(inputs, data_samples, **kwargs)
        scores = [F.softmax(self.head(self.extract_feat(view)).float(), dim=1) for view in inputs.unbind(1)]
        # The head turns scores into probabilities, and of their logarithms it makes the same probabilities again.
        return self.head._get_predictions(torch.stack(scores).mean(0).log(), data_samples)
