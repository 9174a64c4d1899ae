"""Configs in which text of strangers stays text.

For: mmengine 0.10, and onedl-mmengine, its fork.
Fault: MMEngine puts values into the *text* of a config in place of ``{{ ... }}``, quoted or not,
before Python reads it, and the default of ``{{$NAME:default}}`` is a regular expression and a
template. So a class name in a config that was dumped, or a folder's name in place of
``{{ fileDirname }}``, may become code.
Here: a dumped config has no ``{{``, in Python, JSON and YAML, since it is written with an escape,
and the name of a config's file or folder comes in with escapes for all that a string literal may
not hold.
Can go: when MMEngine replaces values in the parsed config.
"""

import functools
import os
import re
from typing import Any, Optional

import mmengine
import mmengine.config.config as mmengine_config
import yaml
from mmengine import fileio
from mmengine.config import Config
from mmengine.fileio.handlers import yaml_handler
from mmengine.utils import digit_version

_FILE_VARIABLE = re.compile(
    r'\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}'
)
_NOT_IN_A_LITERAL = re.compile(r'[\'"\\{}\x00-\x1f]')


def inert(source: str) -> str:
    """Return Python source of the same values, into which MMEngine substitutes nothing.

    Args:
        source (str): Of literals, as ``repr`` writes them: outside of a string none has ``{{``,
            and inside of one no backslash before it is without its own.
    """
    return source.replace('{{', r'{\x7b')


class _Dumper(yaml_handler.Dumper):
    """Puts between double quotes what has ``{{``: nowhere else does YAML know escapes."""


def _represent_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if '{{' in text else None
    return dumper.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Dumper.add_representer(str, _represent_str)
# Format -> arguments of its writer.
_FORMATS = dict(json={}, yaml=dict(Dumper=_Dumper), yml=dict(Dumper=_Dumper))


def _dump(values: dict, file: Optional[str] = None, file_format: Optional[str] = None) -> Any:
    if file_format not in _FORMATS:
        return fileio.dump(values, file=file, file_format=file_format)
    text = fileio.dump(values, file_format=file_format, **_FORMATS[file_format])
    # Of both only a string has it.
    text = text.replace('{{', r'{\u007b')
    return text if file is None else fileio.put_text(text, file)


def _substitute_predefined_vars(filename: str, temp_config_name: str) -> None:
    folder, name = os.path.split(filename)
    stem, suffix = os.path.splitext(name)
    values = dict(
        fileDirname=folder.replace('\\', '/') if os.sep == '\\' else folder,
        fileBasename=name,
        fileBasenameNoExtension=stem,
        fileExtname=suffix,
    )
    with open(filename, encoding='utf-8') as file:
        text = file.read()
    text = _FILE_VARIABLE.sub(lambda match: _escaped(values[match[1]]), text)
    with open(temp_config_name, 'w', encoding='utf-8') as file:
        file.write(text)


def _escaped(value: str) -> str:
    # Python, JSON and YAML in double quotes spell it alike.
    return _NOT_IN_A_LITERAL.sub(lambda match: f'\\u{ord(match[0]):04x}', value)


def applies() -> bool:
    return digit_version(mmengine.__version__) < digit_version('0.11')


def enable() -> None:
    Config._substitute_predefined_vars = staticmethod(_substitute_predefined_vars)
    mmengine_config.dump = _dump
    original = Config.pretty_text.fget

    @functools.wraps(original)
    def pretty_text(self: Config) -> str:
        return inert(original(self))

    Config.pretty_text = property(pretty_text)
