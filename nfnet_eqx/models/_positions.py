"""Where each patch of a vision transformer lies: positions of a grid of any size."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TEMPERATURE = 10_000.0


def resample_positions(
    positions: Float[Array, "old width"], prefix: int, side: int, grid: tuple[int, int]
) -> Float[Array, "new width"]:
    """Learned positions of a square grid for another one, by antialiased bicubic interpolation as timm does it.

    Args:
        positions: first those of the prefix, then the grid's, row by row.
        prefix: how many belong to no place of the grid; they stay as they are.
        side: of the grid that they were learned for, in patches.
        grid: height and width of the new one, in patches.
    """
    if grid == (side, side):
        return positions
    width = positions.shape[-1]
    square = positions[prefix:].reshape(side, side, width).astype(jnp.float32)
    # Keys' cubic (a = -0.5), widened where the grid shrinks, its weights normalized at the border: torch's `antialias`.
    resized = jax.image.resize(square, (*grid, width), "cubic", antialias=True)
    return jnp.concatenate([positions[:prefix], resized.reshape(-1, width).astype(positions.dtype)])


def sincos_positions(grid: tuple[int, int], width: int) -> Float[np.ndarray, "patches width"]:
    """Fixed positions: sines and cosines of the column, then of the row, a quarter of the width each.

    They depend on a patch's row and column alone: another image size adds rows and columns, or takes them away.

    References:
        Beyer et al., "Better plain ViT baselines for ImageNet-1k" (2205.01580), and its code in big_vision.
    """
    quarter = width // 4
    frequencies = TEMPERATURE ** -(np.arange(quarter) / max(quarter - 1, 1))
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    by_row, by_column = (np.outer(places.ravel(), frequencies) for places in (rows, columns))
    parts = (np.sin(by_column), np.cos(by_column), np.sin(by_row), np.cos(by_row))
    return np.concatenate(parts, axis=1).astype(np.float32)
