# Table 3: UperNet on ConvMAE-B as in the released code.
# mmengine looks for `mmseg::` in a package of the name mmsegmentation, which OneDL's is not.
#     mim train mmseg \
#         configs/segmentation/upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512.py --launcher pytorch --gpus 8
_base_ = [
    f'{__import__("mmseg").__path__[0]}/.mim/configs/_base_/{name}.py'
    for name in ('models/upernet_swin', 'datasets/ade20k', 'schedules/schedule_160k', 'default_runtime')
]
custom_imports = dict(imports=['mmconvmae'])
runner_type = 'mmconvmae.ScheduleRunner'

crop_size = (512, 512)

# A test image that is smaller than the window that slides over it is padded to it.
data_preprocessor = dict(size=crop_size, test_cfg=dict(size=crop_size))
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(
        _delete_=True,
        type='mmconvmae.ConvViT',
        arch='base',
        img_size=crop_size,
        rel_pos='per_block',
        layer_scale_init_value=1.0,
        norm_cfg=dict(type='LN', eps=1e-5),
        fourth_level='conv',
        out_indices=(0, 1, 2, 3),
        out_type='featmap',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[256, 384, 768, 768], channels=768, num_classes=150),
    auxiliary_head=dict(in_channels=768, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
)

# Seeds by the place in the run (here, in the sampler and in the hook), so that a resumed run has the same crops.
train_pipeline = [
    dict(type='mmconvmae.SeedSample'),
    dict(type='mmconvmae.LoadWholeImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2, sampler=dict(type='mmconvmae.SeededInfiniteSampler'), dataset=dict(pipeline=train_pipeline)
)

# The learning rate falls by `layer_decay_rate` from each layer of the backbone to the one before.
optim_wrapper = dict(
    _delete_=True,
    type='mmconvmae.AutocastOptimWrapper',
    dtype='bfloat16',
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0)},
    ),
)
auto_scale_lr = dict(base_batch_size=16)
# Warm-up, then a straight line to 0 at the last iteration, whatever `max_iters` is.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=0),
]
randomness = dict(seed=0, diff_rank_seed=True)
custom_hooks = [dict(type='mmconvmae.IterSeedHook'), dict(type='mmconvmae.FiniteCheckHook')]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='mIoU'))
