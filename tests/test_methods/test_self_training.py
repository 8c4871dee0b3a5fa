"""Self-training against its formula."""

import pytest
import torch
import torch.nn.functional as F

from ..helpers.method_contract import MethodContract
from ..helpers.tiny_models import CROP, losses_in


class TestSelfTraining(MethodContract):
    method = 'allspark_mmseg.SelfTraining'
    views = ('weak', 'strong_1')
    hyper_parameters = dict(
        labeled_weight=0.7,
        unlabeled_weight=0.7,
        ignore_padding=True,
        threshold=0.5,
        unlabeled_view='strong_1',
    )

    def test_loss_is_the_paper_s(self):
        model = self.build()
        inputs, data_samples = self.batch(1, 2)
        student = model.student
        with torch.no_grad():
            logits = student.eval().encode_decode(inputs['weak'], [dict(img_shape=CROP)] * 2)
        logits = F.interpolate(logits, CROP, mode='bilinear')
        student.train()
        joint = student.decode_head(student.extract_feat(torch.cat([inputs['labeled'], inputs['weak']])))
        joint = F.interpolate(joint, CROP, mode='bilinear')
        mask = data_samples['labeled'][0].gt_sem_seg.data

        model = self.build()  # batch norm has moved
        entries = model.loss(inputs, data_samples)
        supervised = 0.5 * F.cross_entropy(joint[:1], mask, ignore_index=255)
        unsupervised = 0.5 * F.cross_entropy(joint[1:], logits.argmax(1))
        torch.testing.assert_close(entries['sup.decode.loss_ce'], supervised)
        torch.testing.assert_close(entries['unsup.loss_ce'], unsupervised)
        confidence = logits.softmax(1).amax(1).mean()
        torch.testing.assert_close(entries['pseudo.confidence'], confidence)
        share = F.one_hot(logits.argmax(1), 4).float().mean((0, 1, 2))
        torch.testing.assert_close(model.pseudo_share, share)
        assert entries['pseudo.classes'] == (share > 1e-3).sum()

    @pytest.mark.parametrize('name, term', [('labeled_weight', 'sup.'), ('unlabeled_weight', 'unsup.')])
    def test_weights_scale_their_own_losses_alone(self, name, term):
        step = self.batch()
        half, whole = (self.build(**{name: weight}).loss(*step) for weight in (0.5, 1.0))
        for entry, value in half.items():
            factor = 2 if 'loss' in entry and entry.startswith(term) else 1
            torch.testing.assert_close(whole[entry], factor * value)
        assert losses_in(half, term) > 0

    def test_masks_of_unlabeled_images_are_not_read(self):
        inputs, data_samples = self.batch()
        with_masks = dict(data_samples, weak=data_samples['labeled'])
        assert torch.equal(
            losses_in(self.build().loss(inputs, data_samples)),
            losses_in(self.build().loss(inputs, with_masks)),
        )

    def test_padding_is_learned_from_unless_it_is_ignored(self):
        inputs, data_samples = self.batch(1, 2)
        model = self.build(ignore_padding=True)
        logits = []
        model.student.decode_head.register_forward_hook(lambda *args: logits.append(args[-1].detach()))
        losses = model.loss(inputs, data_samples)
        pseudo, joint = (F.interpolate(each, CROP, mode='bilinear') for each in logits)
        inside = slice(0, CROP[0] // 2)
        expected = F.cross_entropy(joint[1:, :, inside], pseudo[:, :, inside].argmax(1))
        torch.testing.assert_close(losses['unsup.loss_ce'], 0.5 * expected)
        everywhere = self.build().loss(inputs, data_samples)
        torch.testing.assert_close(everywhere['sup.decode.loss_ce'], losses['sup.decode.loss_ce'])
        torch.testing.assert_close(
            everywhere['unsup.loss_ce'], 0.5 * F.cross_entropy(joint[1:], pseudo.argmax(1))
        )

    def test_ignoring_padding_needs_its_marks(self):
        inputs, data_samples = self.batch()
        for sample in data_samples['weak']:
            del sample.gt_sem_seg
        self.build().loss(inputs, data_samples)
        with pytest.raises(ValueError, match=r'ignore_padding=True.*LoadEmptyAnnotations'):
            self.build(ignore_padding=True).loss(inputs, data_samples)
