# The data of magnetic_tile_36.py with all 670 training images labeled, for supervised training: the upper limit of its
# semi-supervised runs.
_base_ = './magnetic_tile_36.py'

train_dataloader = dict(dataset=dict(split='{{ fileDirname }}/../splits/magnetic_tile/all'))
