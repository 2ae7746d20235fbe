# Every image in a folder and below it; labels are not needed.
_base_ = './imagenet_bs256_convmae.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmconvmae.ImageFolder',
        data_root='data/images/',
        pipeline=_base_.train_pipeline,
    ),
)
