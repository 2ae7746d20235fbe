# Figure 3: VideoConvMAE on Something-Something v2, 800 epochs with the single-scale decoder, 69.9 after finetuning.
#     mim train mmpretrain \
#         configs/video/videoconvmae_videoconvvit-base-p16-single-scale_64xb32-amp-coslr-800e_ssv2.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = [
    '../_base_/models/videoconvmae_videoconvvit-base-p16.py',
    '../_base_/datasets/ssv2_bs32_pretrain.py',
    '../_base_/schedules/clips_bs2048_adamw_coslr_pretrain.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=800)
model = dict(neck=dict(multi_scale=False))
