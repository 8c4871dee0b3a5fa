"""UniMatch: the contract of every method, its formula and its dropped channels."""

import pytest
import torch

from ..helpers.fixmatch_contract import UNIMATCH_VIEWS, FixMatchContract, fixmatch_loss
from ..helpers.recorder import CallRecorder
from ..helpers.tiny_models import losses_in, tiny_resnet, tiny_segmentor


class TestUniMatch(FixMatchContract):
    method = 'allspark_mmseg.UniMatch'
    views = UNIMATCH_VIEWS
    hyper_parameters = FixMatchContract.hyper_parameters | dict(perturbed_weight=0.7, drop_rate=0.1)
    strong_views = ('strong_1', 'strong_2')

    def test_default_weights_are_those_of_the_paper(self):
        model = self.build()
        assert (model.labeled_weight, model.strong_weight, model.perturbed_weight) == (0.5, 0.125, 0.25)
        assert model.drop_rate == 0.5

    @pytest.mark.parametrize('rate', [0.5, 0.25])
    @pytest.mark.parametrize('segmentor', [tiny_segmentor, tiny_resnet])
    def test_channels_are_dropped_of_all_levels(self, rate, segmentor):
        model = self.build_unmixed(segmentor=segmentor(), drop_rate=rate)
        head = CallRecorder(model.decode_head)
        model.loss(*self.batch(3, 3))
        assert [len(given[0]) for given in head.inputs] == [12, 6], 'the decoder is called twice'
        kept = []
        for level in head.inputs[0]:
            clean, perturbed = (part.flatten(2) for part in level.chunk(2))
            dropped = perturbed.eq(0).all(2)
            whole = torch.isclose(perturbed * (1 - rate), clean, rtol=1e-5, atol=1e-6).all(2)
            assert (dropped | whole).all()
            kept.append((~dropped).float())
            assert not torch.equal(dropped[0], dropped[-1]), 'one draw for all images'
        share = torch.cat(kept, 1)
        assert share.mean() == pytest.approx(1 - rate, abs=0.1)
        assert all(0.2 < level.mean() < 0.95 for level in kept)

    def test_the_perturbed_loss_is_of_unlabeled_images_alone(self):
        model = self.build_unmixed(strong_weight=0.0, labeled_weight=0.0)
        head = CallRecorder(model.decode_head)
        entries = model.loss(*self.batch(2, 2))
        outputs = head.outputs[0]
        assert len(outputs) == 8
        weak, perturbed = outputs[2:4], outputs[6:8]
        expected = 0.25 * fixmatch_loss(perturbed, weak, 0.3)
        torch.testing.assert_close(entries['unsup.loss_perturbed'].detach(), expected)
        outputs.retain_grad()
        losses_in(entries).backward()
        moved = outputs.grad.flatten(1).abs().amax(1) > 0
        assert moved.tolist() == [False] * 6 + [True] * 2

    def test_weights_scale_their_own_losses_alone(self):
        step = self.batch()
        plain = self.build().loss(*step)
        for weight, own in (
            ('strong_weight', {'unsup.loss_strong_1', 'unsup.loss_strong_2'}),
            ('perturbed_weight', {'unsup.loss_perturbed'}),
            ('labeled_weight', {name for name in plain if name.startswith('sup.') and 'loss' in name}),
        ):
            model = self.build()
            doubled = self.build(**{weight: 2 * getattr(model, weight)}).loss(*step)
            for name, value in plain.items():
                torch.testing.assert_close(doubled[name], (1 + (name in own)) * value)

    def test_a_drop_rate_out_of_range_is_refused(self):
        for rate in (1.0, -0.1):
            with pytest.raises(ValueError, match=f'UniMatch: drop_rate is {rate}'):
                self.build(drop_rate=rate)
