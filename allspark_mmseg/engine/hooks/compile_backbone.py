"""Hook that compiles the backbone."""

from typing import Any, cast

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone of the student, and that of the teacher, with ``torch.compile`` before training.

    The hook compiles only the backbone. The rest of a method updates buffers and draws random numbers, which
    a graph does not support. State-dict keys do not change. The first iteration takes a minute or more.

    Args:
        **kwargs: Arguments of ``torch.compile``: ``backend``, ``mode``, ``dynamic``, ...
    """

    def __init__(self, **kwargs: Any) -> None:
        self.options = kwargs

    def before_train(self, runner: Runner) -> None:
        """Compile the backbone.

        Args:
            runner (Runner): The runner.
        """
        model = unwrap_model(runner.model)
        for segmentor in model.networks.values() if isinstance(model, SemiSegmentor) else [model]:
            cast(nn.Module, segmentor.backbone).compile(**self.options)
        runner.logger.info('The backbone is compiled. The first iteration takes longer.')
