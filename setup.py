"""Packaging: the console script `run` and the extras; pins of the tested set stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

TRAIN = ["filelock>=3.30", "scikit-learn>=1.5", "torch>=2.9"]
TEXT = ["tokenizers>=0.20"]
MPL = ["scipy>=1.11"]
VISION = [*TRAIN, "open_clip_torch>=2.24", "timm>=1.0", "torchvision>=0.24"]
SEARCH = ["cmaes>=0.10", "optuna>=4.0", "scipy>=1.11"]
NOTIFY = ["apprise>=1.8"]
STATS = ["scipy>=1.15", "scikit-learn>=1.4"]
REPORT = ["plotly>=5.20"]
DEV = [
    *NOTIFY,
    *STATS,
    *REPORT,
    *SEARCH,
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "jsonschema>=4.20",
    "mpmath>=1.3",
    "mypy>=1.13",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "pandas-stubs>=2.2",
    "playwright>=1.45",
    "pytest>=8.2",
    "pytest-timeout>=2.3",
    "ruff>=0.8",
    "statsmodels>=0.14.2",
    "types-psutil>=6.0",
    "types-PyYAML>=6.0.12",
]

setup(
    name="params-runner",
    version="0.1.0",
    description="Runs the grid of experiments in params.yaml concurrently on GPUs or CPU slots, and resumes it.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["runner", "runner.*", "train", "train.*", "mpl", "mpl.*"]),
    package_data={"runner": ["py.typed"], "train": ["py.typed"], "mpl": ["py.typed"]},
    install_requires=[
        "matplotlib>=3.8",
        "numpy>=1.26",
        "nvidia-ml-py>=12.550.52",
        "pandas>=2.1",
        "psutil>=5.9.6",
        "pydantic>=2.9",
        "PyYAML>=6.0.1",
        "rich>=14.3",
        "tensorboard>=2.16",
    ],
    extras_require={
        "train": TRAIN,
        "mpl": MPL,
        "text": TEXT,
        "vision": VISION,
        "search": SEARCH,
        "notify": NOTIFY,
        "stats": STATS,
        "report": REPORT,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["run=runner.cli:main"]},
)
