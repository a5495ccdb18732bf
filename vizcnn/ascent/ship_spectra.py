"""Measure the amplitude spectra that come with the package, from the data of the bundled networks.

python -m vizcnn.ascent.ship_spectra tiny-imagenet-200.tar.xz path/to/mnist
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vizcnn.ascent.spectrum import SHIPPED, measure_spectrum
from vizcnn.zoo import train_mnist, train_tiny

_IMAGES = 5000


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="tiny-imagenet-200.tar.xz")
    parser.add_argument("mnist", type=Path, help="the folder of MNIST's idx files")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    given = parser.parse_args(arguments)
    photos = train_tiny.validation_split(train_tiny.read_archive(given.archive)).images
    digits = train_mnist.read_digits(given.mnist, "train")[0]
    ship({"tiny": photos.float() / 255, "mnist": digits}, given.out)


def ship(images: dict[str, Tensor], out: Path) -> None:
    """Write the spectra of data sets (N, C, H, W) in [0, 1]: half precision, each with its contrast beside."""
    amplitudes, contrasts = {}, {}
    for name, each in images.items():
        spectrum, contrast = measure_spectrum(each[:_IMAGES], (each.shape[1], each.shape[2], each.shape[3]))
        amplitudes[name], contrasts[name] = spectrum.to(torch.float16), f"{contrast:.4f}"
    save_file(amplitudes, out, contrasts)


if __name__ == "__main__":
    main()
