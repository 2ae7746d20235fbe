# VideoConvMAE on Kinetics-400, 200 epochs with the multi-scale decoder; figure 3 has no result of it.
#     mim train mmpretrain \
#         configs/video/videoconvmae_videoconvvit-base-p16_64xb32-amp-coslr-200e_k400.py \
#         --launcher slurm --gpus 64 --gpus-per-node 8
_base_ = [
    '../_base_/models/videoconvmae_videoconvvit-base-p16.py',
    '../_base_/datasets/k400_bs32_pretrain.py',
    '../_base_/schedules/clips_bs2048_adamw_coslr_pretrain.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)
