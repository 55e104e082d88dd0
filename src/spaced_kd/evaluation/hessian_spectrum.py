"""Eigenvalues of a Hessian: the outermost ones, and the density of all of them.

Both need only products with vectors, of the operator of `evaluators/hessian_trace.py`. Random numbers of the libraries
are seeded.
"""

import numpy as np
from curvlinops import HessianLinearOperator, lanczos_approximate_spectrum
from scipy.sparse.linalg import eigsh

from spaced_kd.utils.seeding import generator, global_seed


def eigenvalues(hessian: HessianLinearOperator, count: int, *, seed: int) -> np.ndarray:
    """The `count` smallest and the `count` largest eigenvalues, ascending (2 count,), to one per cent or better.

    In nats per squared unit of the weights; the seed is of the start. Source: Lanczos with restarts (ARPACK), which
    the documentation of curvlinops recommends.
    """
    start = generator(seed, "start of Lanczos").standard_normal(hessian.shape[0])
    found = eigsh(hessian.to_scipy(), k=2 * count, which="BE", v0=start, tol=1e-2, return_eigenvectors=False)
    return np.sort(found)


def density(
    hessian: HessianLinearOperator, ends: tuple[float, float], *, seed: int, vectors: int = 30, repeats: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Density p of the eigenvalues λ, which integrates to one: a grid of λ, and p at its points.

    Each eigenvalue is smeared into a Gaussian, the narrower the more `vectors` there are.

    Args:
        hessian: the operator.
        ends: its smallest and its largest eigenvalue.
        seed: of the random starts.
        vectors: products with the operator for each start.
        repeats: starts over which the density is averaged.

    Source: Papyan 2020, "Traces of class/cross-class structure pervade deep learning spectra", algorithm 2.
    """
    with global_seed(seed, "density of eigenvalues"):
        grid, found = lanczos_approximate_spectrum(hessian, vectors, num_repeats=repeats, boundaries=ends)
    return grid.numpy(force=True), found.numpy(force=True)
