"""torch.compile where it pays, and where it works."""

from mmengine.hooks import Hook

from ...methods import SemiSegmentor
from ...registry import HOOKS
from ...utils import unwrap_model


@HOOKS.register_module()
class CompileBackboneHook(Hook):
    """Compile the backbone with ``torch.compile`` before training.

    Only the backbone: what follows it writes a memory and draws its own random numbers, which a graph cannot
    hold. Keys of the state dict, and so checkpoints, stay as they are. The first iteration takes a minute or
    more.

    Args:
        kwargs: of ``torch.compile``: ``backend``, ``mode``, ``dynamic``, ...
    """

    def __init__(self, **kwargs):
        self.options = kwargs

    def before_train(self, runner) -> None:
        """Compile it."""
        model = unwrap_model(runner.model)
        segmentor = model.student if isinstance(model, SemiSegmentor) else model
        segmentor.backbone.compile(**self.options)
        runner.logger.info('The backbone is compiled; the first iteration takes longer.')
