# Table 2: "Benchmarking", ViT-B with a feature pyramid, in the pipeline of ours.
#     mim train mmdetection \
#         configs/baselines/detection/mask-rcnn_vit-base-p16_fpn_8xb4-amp-lsj-100e_coco.py --launcher pytorch --gpus 8
_base_ = '../../detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'
custom_imports = dict(imports=['mmconvmae', 'mmseg.models'])

model = dict(
    backbone=dict(
        _delete_=True,
        # It has windows; relative positions are decomposed instead of the tables of this rival's paper.
        type='mmpretrain.ViTSAM',
        arch='base',
        img_size=_base_.image_size,
        window_size=16,
        out_channels=0,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
        # MAE's, by tools/model_converters/vit_to_vit_sam.py.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k/vit_sam.pth',
            prefix='backbone.',
        ),
    ),
    neck=[
        dict(type='mmseg.Feature2Pyramid', embed_dim=768, norm_cfg=dict(type='GN', num_groups=32)),
        dict(_base_.model.neck, in_channels=[768, 768, 768, 768]),
    ],
)

train_cfg = dict(max_epochs=100)
