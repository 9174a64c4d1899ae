import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def requirements() -> list:
    lines = (HERE / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    lines = [line for line in lines if line and not line.startswith('#')]
    if has_full_mmcv():
        lines = [line for line in lines if not line.startswith('mmcv-lite')]
    return lines


def has_full_mmcv() -> bool:
    # The full mmcv and mmcv-lite put their files into one folder: whoever compiled the one
    # must not get the other on top of it. The environment's folders are asked, not sys.path,
    # which in pip's build holds the build's requirements alone.
    folders = [sysconfig.get_path('purelib'), sysconfig.get_path('platlib')]
    return any(found.metadata['Name'] == 'mmcv' for found in distributions(path=folders))


def version() -> str:
    # Executed, not imported: the package itself needs what is not installed yet.
    names = {}
    exec((HERE / 'rtm_kd' / 'version.py').read_text(encoding='utf-8'), names)
    return names['__version__']


setup(
    name='rtm_kd',
    version=version(),
    description="Distilling RTMDet and its MMYOLO relatives on today's PyTorch",
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.9',
    packages=find_packages(include=['rtm_kd', 'rtm_kd.*']),
    install_requires=requirements(),
    extras_require={
        'tests': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff'],
    },
)
