from .algorithms import FpnTeacherDistill
from .connectors import ConvModuleConnector, NormConnector
from .distillers import ConfigurableDistiller, FpnDistiller
from .losses import ChannelWiseDivergence, channel_wise_divergence

__all__ = [
    'ChannelWiseDivergence',
    'ConfigurableDistiller',
    'ConvModuleConnector',
    'FpnDistiller',
    'FpnTeacherDistill',
    'NormConnector',
    'channel_wise_divergence',
]
