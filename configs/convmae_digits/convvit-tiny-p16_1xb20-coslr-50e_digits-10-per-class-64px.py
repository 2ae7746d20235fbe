# Finetuning with ten labelled digits of each class.
#     mim train mmpretrain configs/convmae_digits/convvit-tiny-p16_1xb20-coslr-50e_digits-10-per-class-64px.py
_base_ = [
    '../_base_/models/convvit-base-p16_cls.py',
    '../_base_/datasets/digits_bs64.py',
    '../_base_/schedules/imagenet_bs1024_adamw_coslr_finetune.py',
    '../_base_/convmae_runtime.py',
]

model = dict(
    backbone=dict(
        arch='tiny',
        img_size=64,
        init_cfg=dict(checkpoint='work_dirs/convmae_convvit-tiny-p16_1xb64-coslr-60e_digits-64px/epoch_60.pth'),
    ),
    head=dict(num_classes=10, in_channels=192, topk=1, init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5)),
)

train_dataloader = dict(batch_size=20, dataset=dict(ann_file='meta/train_10_per_class_0.txt'))
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=20)
train_cfg = dict(max_epochs=50, val_interval=10)

default_hooks = dict(checkpoint=dict(save_best='auto'))
resume = False  # `--resume` goes on from the last checkpoint; a test must not
