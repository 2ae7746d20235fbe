_base_ = './mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    backbone=dict(
        window_size=14,
        global_attn_indexes=(1, 4, 7, 10),
        rel_pos='decomposed',
        # As in detectron2: padding takes part in attention, and the position embedding stays as it was pretrained.
        pad_windows=True,
        pretrain_img_size=224,
        conv_norm_cfg=dict(type='LN', eps=1e-6),
        fourth_level=None,
        out_indices=2,
    ),
    neck=dict(
        _delete_=True,
        type='mmconvmae.SimpleFeaturePyramid',
        in_channels=768,
        out_channels=256,
        num_outs=5,
        norm_cfg=norm_cfg,
    ),
    roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)),
)

train_dataloader = dict(batch_size=2, sampler=dict(type='InfiniteSampler'))

# The learning rate falls by `layer_decay_rate` from each layer to the one before. As released, the position embedding
# is of no layer, and the norms of pyramid and heads, which detectron2 does not take for norms, decay.
optim_wrapper = dict(
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.8,
        norm_decay_mult=0.0,
        full_rate_keys=('pos_embed',),
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'neck': dict(decay_mult=1.0),
            'roi_head': dict(decay_mult=1.0),
        },
    ),
)
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, milestones=[163889, 177546], gamma=0.1),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=184375, val_interval=7500)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=7500))
log_processor = dict(by_epoch=False)
