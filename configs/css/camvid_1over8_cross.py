# CSS with crossed labels on CamVid 1/8.
_base_ = './camvid_1over8_mix.py'

model = dict(type='allspark_mmseg.CSSCross')
