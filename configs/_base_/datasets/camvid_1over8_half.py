# The data of camvid_1over30.py with every 8th of the sorted training names labeled (46).
_base_ = './camvid_1over30.py'

train_dataloader = dict(dataset=dict(split='{{ fileDirname }}/../splits/camvid/1over8'))
