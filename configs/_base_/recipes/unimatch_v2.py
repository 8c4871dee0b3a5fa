# UniMatch V2 for your own data, after a supervised phase. Everything except the method is as in unimatch.py.
_base_ = './unimatch.py'

model = dict(type='allspark_mmseg.UniMatchV2')
