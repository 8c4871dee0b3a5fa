"""Mean Teacher, FixMatch, UniMatch and UniMatch V2 keep the contract of every method."""

from ..method_contract import MethodContract


class TestMeanTeacher(MethodContract):
    method = 'allspark_mmseg.MeanTeacher'
    views = ('weak', 'strong_1')
    settings = dict(threshold=0.3)
    hyper_parameters = dict(
        teacher=dict(momentum=0.5, warm_up=False),
        labeled_weight=0.7,
        unlabeled_weight=0.7,
        unlabeled_view='weak',
        threshold=0.5,
        ignore_padding=True,
        ramp_up=5,
    )


UNIMATCH_VIEWS = tuple(prefix + view for prefix in ('', 'mix_') for view in ('weak', 'strong_1', 'strong_2'))


class TestFixMatch(MethodContract):
    method = 'allspark_mmseg.FixMatch'
    views = ('weak', 'strong_1', 'mix_weak', 'mix_strong_1')
    settings = dict(threshold=0.3)
    hyper_parameters = dict(
        threshold=0.5,
        labeled_weight=0.7,
        strong_weight=0.7,
        cutmix=dict(prob=1.0),
        mix_source='same_image',
        ignore_padding=False,
    )


class TestUniMatch(TestFixMatch):
    method = 'allspark_mmseg.UniMatch'
    views = UNIMATCH_VIEWS
    hyper_parameters = TestFixMatch.hyper_parameters | dict(perturbed_weight=0.7, drop_rate=0.1)


class TestUniMatchV2(TestFixMatch):
    method = 'allspark_mmseg.UniMatchV2'
    views = UNIMATCH_VIEWS
    hyper_parameters = TestFixMatch.hyper_parameters | dict(
        untouched=0.0, teacher=dict(momentum=0.5, warm_up=False)
    )
