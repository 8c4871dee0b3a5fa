# COCO as UniMatch has it: no colour on labelled images, and smaller batches than AllSpark's.
_base_ = './coco_1over512.py'

# an unlabelled image as stored; the blank map tells what is padding
load = [_base_.load_image, dict(type='allspark_mmseg.BlankSegMap')]

labeled_dataset = dict(
    pipeline=[*_base_.load_labeled, dict(type='allspark_mmseg.Views', labeled=[_base_.pack])]
)
# for 4 GPUs: 8 labelled and 8 unlabelled images a step
train_dataloader = dict(batch_size=4, sampler=dict(labeled=2, unlabeled=2))
