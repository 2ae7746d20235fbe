# The form that the authors released, in detectron2; tools/model_converters/convmae_official.py converts its checkpoint.
#     mim train mmdetection \
#         configs/detection/mask-rcnn_convvit-base-p16_vitdet_8xb2-amp-lsj-184k_coco.py --launcher pytorch --gpus 8
_base_ = './mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

norm_cfg = dict(type='mmpretrain.LN2d', eps=1e-6)
model = dict(
    backbone=dict(
        pretrain_img_size=224,
        window_size=14,
        global_attn_indexes=(1, 4, 7, 10),
        pad_windows=True,
        rel_pos='decomposed',
        fourth_level=None,
        out_indices=2,
        conv_norm_cfg=dict(type='LN', eps=1e-6),
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

# The learning rate falls by `layer_decay_rate` from each layer to the one before.
optim_wrapper = dict(
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(
        _delete_=True,
        layer_decay_rate=0.8,
        norm_decay_mult=0.0,
        custom_keys={
            # in no layer
            'pos_embed': dict(lr_mult=1.0, decay_mult=0.0),
            # Detectron2 does not take the norms of pyramid and heads for norms.
            'neck.': dict(decay_mult=1.0),
            'roi_head.': dict(decay_mult=1.0),
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
