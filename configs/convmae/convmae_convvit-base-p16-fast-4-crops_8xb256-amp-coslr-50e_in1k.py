# The same steps with a quarter of the decoding: an epoch has four crops of each image, which is decoded once for them.
# Batch and learning rate count crops.
_base_ = './convmae_convvit-base-p16-fast_8xb256-amp-coslr-200e_in1k.py'

train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmconvmae.RepeatedSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='mmconvmae.RepeatedAugmentation',
        repeats=4,
        dataset=dict(
            type='ImageNet',
            data_root='data/imagenet/',
            split='train',
            pipeline=[dict(type='mmconvmae.LoadWholeImage')],
        ),
        pipeline=_base_.train_pipeline,
    ),
)
# Epochs are four times as long.
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(end=10)
param_scheduler[1].update(begin=10)
train_cfg = dict(max_epochs=50)
