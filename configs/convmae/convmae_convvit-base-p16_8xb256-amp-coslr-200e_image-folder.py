# Your own images: --cfg-options train_dataloader.dataset.data_root=PATH
_base_ = [
    '../_base_/models/convmae_convvit-base-p16.py',
    '../_base_/datasets/image_folder_bs256_convmae.py',
    '../_base_/schedules/imagenet_bs2048_adamw_coslr_convmae.py',
    '../_base_/convmae_runtime.py',
]

train_cfg = dict(max_epochs=200)
