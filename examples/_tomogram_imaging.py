"""From mass density to what a tomogram shows: contrast transfer, missing wedge, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Sequence

Image: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Shape3: TypeAlias = tuple[int, int, int]

MAX_TILT = 60.0
"""Degrees to either side by which the stage is tilted about y; what lies steeper in Fourier space is missing."""

WAVELENGTH = 0.0197
"""Å, of 300 kV electrons."""

DEFOCUS = 80_000.0
"""Å under focus, as is common for whole cells, which are thick."""

AMPLITUDE_CONTRAST = 0.15
"""Above the usual 0.07 to 0.10 of thin ice: a cell takes out electrons by inelastic scattering too."""

ENVELOPE = 1500.0
"""Å², B factor of what blurs a whole cell's tomogram: misalignment, motion, inelastic scattering."""

NOISE_FALL_OFF = 0.7
"""The noise's amplitude falls as (frequency + 0.05)^-0.7, so its power by a factor of 5 from 0.12 to 0.48 cycles a
voxel. The real tomogram of a microtubule that comes with cylindra (10.5 Å a voxel) loses a factor of 6 there."""


WEDGE_LEAK = 0.15
"""Share of the noise's amplitude inside the missing wedge, where interpolation puts a little of it."""


def frequencies(shape: Sequence[int]) -> list[Image]:
    """The z, y and x frequencies of a real transform of ``shape``, in cycles a voxel; three arrays that broadcast."""
    steps = [fft.fftfreq(n) for n in shape[:-1]] + [fft.rfftfreq(shape[-1])]
    return [
        step.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(len(steps))])
        for axis, step in enumerate(steps)
    ]


def measured(shape: Sequence[int]) -> Mask:
    """What a tilt series about y measures of Fourier space: |kz| <= tan(60°) * |kx|.

    Returns:
        Bool, of the shape of the real transform, (D, H, W // 2 + 1) when ky is broadcast: (D, 1, W // 2 + 1).
    """
    kz, _, kx = frequencies(shape)
    mask: Mask = np.abs(kz) <= np.tan(np.radians(MAX_TILT)) * np.abs(kx)
    return mask


def transfer(squared: Image, voxel_spacing: float) -> Image:
    """Contrast transfer after phase flipping: never positive, so protein is dark, and never shifts anything.

    -|sqrt(1 - A²) sin(chi) + A cos(chi)| * exp(-B k² / 4) with chi = pi * wavelength * defocus * k²; the spherical
    aberration matters only far beyond the resolution of a tomogram.

    Args:
        squared: Squared frequency in (cycles a voxel)².
        voxel_spacing: Å a voxel.
    """
    k2 = squared / np.float32(voxel_spacing**2)
    chi = np.float32(np.pi * WAVELENGTH * DEFOCUS) * k2
    phase = np.float32(np.sqrt(1 - AMPLITUDE_CONTRAST**2))
    contrast: Image = -np.abs(phase * np.sin(chi) + np.float32(AMPLITUDE_CONTRAST) * np.cos(chi))
    contrast *= np.exp(np.float32(-ENVELOPE / 4) * k2)
    return contrast


def imaged(density: Image, voxel_spacing: float) -> Image:
    """What a noise-free tomogram shows of a density: contrast transfer and missing wedge.

    Args:
        density: (D, H, W) float32, protein 1.
        voxel_spacing: Å a voxel.

    Returns:
        (D, H, W) float32, protein dark, mean 0, nothing inside the missing wedge.
    """
    kz, ky, kx = frequencies(density.shape)
    spectrum = fft.rfftn(density, workers=-1)
    spectrum *= transfer(kz**2 + ky**2 + kx**2, voxel_spacing)
    spectrum *= measured(density.shape)
    spectrum[0, 0, 0] = 0
    image: Image = fft.irfftn(spectrum, s=density.shape, workers=-1, overwrite_x=True)
    return image


def coloured_noise(shape: Shape3, rng: np.random.Generator) -> Image:
    """Noise of a reconstruction: strong at low frequencies, and with the same missing wedge as the signal.

    Returns:
        (D, H, W) float32, mean 0, standard deviation 1.
    """
    kz, ky, kx = frequencies(shape)
    spectrum = fft.rfftn(rng.standard_normal(shape, np.float32), workers=-1)
    spectrum *= (np.sqrt(kz**2 + ky**2 + kx**2) + np.float32(0.05)) ** np.float32(-NOISE_FALL_OFF)
    spectrum *= np.where(measured(shape), np.float32(1), np.float32(WEDGE_LEAK))
    spectrum[0, 0, 0] = 0
    noise: Image = fft.irfftn(spectrum, s=shape, workers=-1, overwrite_x=True)
    noise /= noise.std()
    return noise


def to_uint8(image: Image) -> NDArray[np.uint8]:
    """Scale an image of mean 0 and standard deviation 1 to bytes: ±3.5 standard deviations fill them, 0 is 128."""
    scaled = np.rint(image * np.float32(127 / 3.5) + np.float32(128))
    stretched: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return stretched
