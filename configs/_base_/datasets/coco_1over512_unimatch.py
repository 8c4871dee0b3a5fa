# COCO as UniMatch has it: no color on labeled images, and smaller batches than AllSpark's.
_base_ = './coco_1over512.py'

# an unlabeled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.LoadEmptyAnnotations')]

labeled_dataset = dict(
    pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.MultiView', labeled=[_base_.pack])]
)
# for 4 GPUs: 8 labeled and 8 unlabeled images a step
train_dataloader = dict(batch_size=4, sampler=dict(labeled=2, unlabeled=2))
