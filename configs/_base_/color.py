# The color augmentation of AllSpark (labeled images) and UniMatch (strong views). The outer prob switches it off.
color = [
    dict(type='RandomApply', prob=1.0, transforms=[
        dict(type='RandomApply', prob=0.8, transforms=[
            dict(type='allspark_mmseg.ColorJitter', brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)]),
        dict(type='allspark_mmseg.RandomGrayscale', prob=0.2),
        dict(type='RandomApply', prob=0.5, transforms=[
            dict(type='allspark_mmseg.GaussianBlur', sigma_range=(0.1, 2.0))]),
    ]),
]  # fmt: skip

# The color augmentation of CSS, for labeled images and strong views.
css_color = [
    dict(type='RandomApply', prob=0.8, transforms=[
        dict(type='allspark_mmseg.ColorJitter', brightness=0.25, contrast=0.25, saturation=0.25, hue=0.25)]),
    dict(type='RandomApply', prob=0.5, transforms=[
        dict(type='allspark_mmseg.GaussianBlur', sigma_range=(0.15, 1.15))]),
]  # fmt: skip

# The last step of the unlabeled pipeline, for methods with strong views.
_pack = dict(type='PackSegInputs')
_strong = [*color, _pack]
one_strong_view = dict(type='allspark_mmseg.MultiView', strong_1=_strong, weak=[_pack])
two_strong_views = dict(type='allspark_mmseg.MultiView', strong_1=_strong, strong_2=_strong, weak=[_pack])
