import pytest
import torch
from mmpretrain.structures import DataSample


@pytest.fixture
def model(small_arch, build):
    backbone = dict(type='mmconvmae.VideoConvViT', arch=small_arch, img_size=32, num_frames=4)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=32)
    return build(dict(type='mmconvmae.VideoClassifier', backbone=backbone, head=head)).eval()


def test_probabilities_of_views_are_averaged(model):
    views = torch.randn(2, 3, 3, 4, 32, 32) * 5
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    with torch.no_grad():
        predictions = model(views, samples, mode='predict')
        for video, prediction in zip(views, predictions):
            probabilities = torch.stack([model(clip[None])[0].softmax(0) for clip in video]).mean(0)
            torch.testing.assert_close(prediction.pred_score, probabilities)
            assert prediction.pred_label.item() == probabilities.argmax()
    assert predictions[1] is samples[1]


def test_clips_without_views(model):
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        for prediction, views in zip(model(clips, mode='predict'), model(clips.unsqueeze(1), mode='predict')):
            torch.testing.assert_close(prediction.pred_score, views.pred_score)


def test_loss_of_clips(model):
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    clips = torch.randn(2, 3, 4, 32, 32)
    expected = torch.nn.functional.cross_entropy(model(clips), torch.arange(2))
    torch.testing.assert_close(model(clips, samples, mode='loss')['loss'], expected)
