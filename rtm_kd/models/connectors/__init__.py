from .conv_module_connector import ConvModuleConnector
from .norm_connector import NormConnector

__all__ = ['ConvModuleConnector', 'NormConnector']
