# AllSpark on Pascal VOC, augmented 1/16 in U2PL's selection (662 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/u2pl_1_16'))
