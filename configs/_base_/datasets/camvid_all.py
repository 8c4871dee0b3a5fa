# The data of camvid_1over30.py with all 367 training images labeled, for supervised training: the upper limit of its
# semi-supervised runs.
_base_ = './camvid_1over30.py'

train_dataloader = dict(dataset=dict(split='{{ fileDirname }}/../splits/camvid/all'))
