# AllSpark on Pascal VOC, augmented 1/8 in U2PL's selection (1323 labels).
_base_ = './voc_1over16.py'

train_dataloader = dict(dataset=dict(split='data/splits/voc/u2pl_1_8'))
