# `train.txt` has lines of a path and, if you like, a class.
_base_ = './clips_bs32_pretrain.py'

load = dict(type='mmconvmae.LoadClip', sampler=dict(type='mmconvmae.DenseClip', frame_interval=2))
train_dataloader = dict(
    dataset=dict(
        type='mmconvmae.VideoList',
        data_root='data/sthv2/',
        ann_file='train.txt',
        pipeline=[load, *_base_.augmentation],
    ),
)
