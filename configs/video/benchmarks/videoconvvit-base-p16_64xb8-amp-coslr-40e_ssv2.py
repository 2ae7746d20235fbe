# Figure 3: VideoConvMAE finetuned on Something-Something v2, 70.7; tested with 2 clips x 3 crops of each video.
#     mim train mmpretrain \
#         configs/video/benchmarks/videoconvvit-base-p16_64xb8-amp-coslr-40e_ssv2.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = './videoconvvit-base-p16_64xb8-amp-coslr-100e_k400.py'

pretraining = 'videoconvmae_videoconvvit-base-p16_64xb32-amp-coslr-800e_ssv2'
model = dict(
    backbone=dict(init_cfg=dict(checkpoint=f'work_dirs/{pretraining}/epoch_800.pth')),
    head=dict(num_classes=174),
)
data_preprocessor = dict(num_classes=174)

# A frame from each part of the video. No flip: from left to right and from right to left are different classes.
augmentation = [step for step in _base_.augmentation if step['type'] != 'RandomFlip']
train_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.SegmentClip')),
    dict(_base_.broadcast, transforms=augmentation),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.SegmentViews', num_clips=2)),
    *_base_.test_pipeline[1:],
]
dataset = dict(data_root='data/sthv2/')
train_dataloader = dict(dataset=dict(dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=5e-4 * 512 / 256))
train_cfg = dict(max_epochs=40)
