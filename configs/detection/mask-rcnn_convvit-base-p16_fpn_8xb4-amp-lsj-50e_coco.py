# Mask R-CNN on ConvMAE-B, 50 epochs; not in the paper.
_base_ = './mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

train_cfg = dict(max_epochs=50)
