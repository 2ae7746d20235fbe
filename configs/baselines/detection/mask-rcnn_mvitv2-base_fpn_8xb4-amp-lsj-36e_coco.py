# Table 2: MViTv2-B in the pipeline of ours.
#     mim train mmdetection \
#         configs/baselines/detection/mask-rcnn_mvitv2-base_fpn_8xb4-amp-lsj-36e_coco.py --launcher pytorch --gpus 8
_base_ = '../../detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        # Without the windows that MViTv2 has in detectors, so that it computes more.
        type='mmpretrain.MViT',
        arch='base',
        # Of pretraining: the relative positions load only at that size, and each pass resizes them.
        img_size=224,
        out_scales=(0, 1, 2, 3),
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://mmassets.onedl.ai/mmclassification/v0/mvit/'
            'mvitv2-base_3rdparty_in1k_20220722-9c4f0a17.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_cfg = dict(max_epochs=36)
