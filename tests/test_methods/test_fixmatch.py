"""FixMatch: the contract of every method, its formula and its weights."""

from ..helpers.fixmatch_contract import FixMatchContract


class TestFixMatch(FixMatchContract):
    method = 'allspark_mmseg.FixMatch'
    views = ('weak', 'strong_1', 'mix_weak', 'mix_strong_1')
    strong_views = ('strong_1',)

    def test_default_weights_are_those_of_the_paper(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight) == (0.5, 0.5)
