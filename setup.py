from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def requirements() -> list:
    lines = (HERE / 'requirements.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


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
        # No requirement of the package itself: mmcv-lite and the full mmcv put their files
        # into the same folder, so that it would overwrite the mmcv of whoever compiled one.
        'lite': ['mmcv-lite>=2.0.0,<2.1.0'],
        'tests': ['pytest', 'ruff'],
    },
)
