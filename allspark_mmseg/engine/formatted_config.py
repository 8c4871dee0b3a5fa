"""Configs whose text is formatted once."""

from mmengine.config import Config

_texts: dict[str, str] = {}  # content -> formatted text


class FormattedOnce(Config):
    """A config that keeps its formatted text.

    MMEngine asks for the text four times at the start of a run and once for each checkpoint. YAPF needs
    about 1 s each time.
    """

    @property
    def pretty_text(self) -> str:
        """The config as formatted Python code."""
        content = repr(self.to_dict())
        if content not in _texts:
            _texts[content] = super().pretty_text
        return _texts[content]
