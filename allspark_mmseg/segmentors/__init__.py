"""Segmentors that MMSegmentation lacks."""

from .extended_encoder_decoder import ExtendedEncoderDecoder

__all__ = ['ExtendedEncoderDecoder']
