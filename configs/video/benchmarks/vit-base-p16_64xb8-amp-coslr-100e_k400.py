# Figure 3: VideoMAE's ViT-B, the rival, finetuned on Kinetics-400 in the same pipeline, 79.4.
#     mim train mmpretrain \
#         configs/video/benchmarks/vit-base-p16_64xb8-amp-coslr-100e_k400.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = './videoconvvit-base-p16_64xb8-amp-coslr-100e_k400.py'

pretraining = 'videomae_vit-base-p16_64xb32-amp-coslr-800e_k400'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmconvmae.VideoMAEViT',
        arch='base',
        img_size=224,
        num_frames=16,
        out_type='avg_featmap',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=f'work_dirs/{pretraining}/epoch_800.pth', prefix='backbone.'),
    ),
)
