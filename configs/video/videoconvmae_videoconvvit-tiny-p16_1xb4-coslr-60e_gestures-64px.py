# A trial for a CPU: the tiny model on a folder of videos, such as gestures of sign language, 60 epochs at 64 pixels.
#     mim train mmpretrain configs/video/videoconvmae_videoconvvit-tiny-p16_1xb4-coslr-60e_gestures-64px.py
_base_ = './videoconvmae_videoconvvit-base-p16_64xb32-amp-coslr-800e_k400.py'

model = dict(
    backbone=dict(arch='tiny', img_size=64, num_frames=8),
    mask_generator=dict(mask_ratio=0.75),  # of 16 tubes
    neck=dict(embed_dims=128, depth=2, num_heads=4),
)
train_pipeline = [
    dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.DenseClip', num_frames=8, frame_interval=4)),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=[dict(type='mmconvmae.MultiScaleCrop', scale=64)],
    ),
    dict(type='mmconvmae.FormatClips'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(data_root='data/asl_gestures/videos/', ann_file='', pipeline=train_pipeline),
)
optim_wrapper = dict(dtype=None, optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_epochs=60)
default_hooks = dict(logger=dict(interval=5))
