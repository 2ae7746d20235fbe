# Figure 3: VideoMAE ViT-B, the rival, 800 epochs on Kinetics-400, 79.4 after finetuning; in the same pipeline.
#     mim train mmpretrain \
#         configs/video/videomae_vit-base-p16_64xb32-amp-coslr-800e_k400.py --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = './videoconvmae_videoconvvit-base-p16-single-scale_64xb32-amp-coslr-800e_k400.py'

model = dict(
    backbone=dict(_delete_=True, type='mmconvmae.VideoMAEViT', arch='base', img_size=224, num_frames=16),
)
