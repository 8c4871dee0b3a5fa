"""Segmentors that are not in MMSegmentation."""

from .extended_encoder_decoder import ExtendedEncoderDecoder

__all__ = ['ExtendedEncoderDecoder']
