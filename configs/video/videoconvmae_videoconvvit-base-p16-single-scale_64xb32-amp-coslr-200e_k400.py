# Figure 3: VideoConvMAE on Kinetics-400, 200 epochs with the single-scale decoder, 80.1 after finetuning.
_base_ = [
    '../_base_/models/videoconvmae_videoconvvit-base-p16.py',
    '../_base_/datasets/k400_bs32_pretrain.py',
    '../_base_/schedules/clips_bs2048_adamw_coslr_pretrain.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)
model = dict(neck=dict(multi_scale=False))
