# Mask R-CNN on ConvMAE-B, 50 epochs; not in the paper.
#     mim train mmdetection \
#         configs/detection/mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-50e_coco.py --launcher pytorch --gpus 8
_base_ = './mask-rcnn_convvit-base-p16_fpn_8xb4-amp-lsj-25e_coco.py'

train_cfg = dict(max_epochs=50)
