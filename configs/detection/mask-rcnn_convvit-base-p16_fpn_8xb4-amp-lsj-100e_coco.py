_base_ = './mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

train_cfg = dict(max_epochs=100)
