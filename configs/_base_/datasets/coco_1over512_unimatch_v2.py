# COCO as UniMatch V2 has it: coco_1over512_unimatch.py with crops of a multiple of 14, and larger batches.
_base_ = './coco_1over512_unimatch.py'

crop_size = (518, 518)
geometry = [dict(type='allspark_mmseg.RandomScaleCropFlip', crop_size=crop_size)]
load_labeled = [_base_.load_image, dict(type='LoadAnnotations'), *geometry]
load_unlabeled = [*_base_.load, *geometry]

labeled_dataset = dict(pipeline=[*load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])])
# for 4 GPUs: 16 labeled and 16 unlabeled images a step
train_dataloader = dict(batch_size=8, sampler=dict(labeled=4, unlabeled=4))
