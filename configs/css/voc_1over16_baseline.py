# CSS's baseline on Pascal VOC, augmented 1/16 (662 labels).
_base_ = './voc_1over16_mix.py'

model = dict(type='allspark_mmseg.CSSBaseline', contrast_ramp_down=None)
