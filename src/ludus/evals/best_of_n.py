"""What to expect of the best of n samples."""

from __future__ import annotations

import math

import torch


def best_of_n_kl(n: int) -> float:
    """Upper bound, in nats, of KL(best of n || base): log n - (n - 1) / n. arXiv:2401.01879 shows that it is one.

    Exact for a continuous reward without ties, where n samples are all different. n=1 gives 0.
    """
    _check(n)
    return math.log(n) - (n - 1) / n


def expected_maximum(n: int) -> float:
    """Mean of the highest of n standard normals: integral of x n phi(x) Phi(x)^(n-1) dx.

    How many standard deviations of a normal reward best-of-n gains; best against worst are twice as far apart.
    """
    _check(n)
    # The trapezoid rule on a smooth integrand that vanishes at both ends is exact to about 1e-12 here.
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    log_density = -0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    integrand = x * n * torch.exp(log_density + (n - 1) * torch.special.log_ndtr(x))
    return float(torch.trapezoid(integrand, x))


def _check(n: int) -> None:
    if n < 1:
        raise ValueError(f"n is {n}; give a number of samples, 1 or more")
