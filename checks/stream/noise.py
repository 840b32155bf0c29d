"""What a row is held against: the rows around it, their noise, and the errors of each scale's own predictions."""

from __future__ import annotations

import numpy as np

from checks.stream.jit import compiled
from checks.stream.layout import DIFFERENCES, ERRORS, LEVELS, RECENT, TRAIL

CLIP = 3.5


@compiled
def median(values, n):  # type: ignore[no-untyped-def]
    # Insertion sort: n is at most 16.
    for i in range(1, n):
        v = values[i]
        j = i - 1
        while j >= 0 and values[j] > v:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = v
    return values[n // 2] if n % 2 else 0.5 * (values[n // 2 - 1] + values[n // 2])


@compiled
def normal(t, nu):  # type: ignore[no-untyped-def]
    z = np.sqrt(nu * np.log1p(t * t / nu)) * (8 * nu + 1) / (8 * nu + 3)
    return z if t >= 0 else -z


@compiled
def student(z, nu):  # type: ignore[no-untyped-def]
    """The inverse of `normal`, for z of 0 and above."""
    z *= (8 * nu + 3) / (8 * nu + 1)
    return np.sqrt(nu * np.expm1(min(z * z / nu, 50.0)))


@compiled
def measure_noise(s):  # type: ignore[no-untyped-def]
    n = min(s.difference_count, DIFFERENCES)
    if n == 0:
        return
    d = np.sort(s.differences[:n])
    sigma = 1.0483 * (d[n // 2] if n % 2 else 0.5 * (d[n // 2 - 1] + d[n // 2]))  # 1.4826 / sqrt 2
    # Differences that are all multiples of the smallest are those of a printed number.
    printed = s.print_step if s.print_hits >= 8 and s.print_hits > 0.9 * s.print_seen else 0.0
    if s.mode == 0 and s.last_y > 0:
        printed /= s.last_y
    if sigma < 3 * printed:
        cap = max(4 * sigma, 4 * printed)
        total = 0.0
        for v in d:
            total += min(v, cap) ** 2
        sigma = np.sqrt(total / n / 2)
    s.sigma = np.sqrt(sigma * sigma + printed * printed / 12)


@compiled
def recent(s, scratch):  # type: ignore[no-untyped-def]
    n = min(s.rows, RECENT - 1)
    for i in range(n):
        scratch[i] = s.recent[(s.rows - 1 - i) % RECENT]
    return n


@compiled
def look_around(s, scratch):  # type: ignore[no-untyped-def]
    """Centre and scale of the next row."""
    n = recent(s, scratch)
    s.scale = max(s.sigma, 0.9 * np.sqrt(s.square))
    if n == 0:
        s.center = 0.0
        return
    slope = 0.0
    middle = median(scratch.copy(), n)
    if s.rows < 512 and n >= 5 and s.open < 0:
        reach = CLIP * s.scale
        mean = 0.0
        for i in range(n):
            scratch[i] = min(max(scratch[i], middle - reach), middle + reach)
            mean += scratch[i] / n
        along = 0.0
        for i in range(n):
            along += (0.5 * (n - 1) - i) * (scratch[i] - mean)
        slope = along / (n * (n * n - 1) / 12.0)
    s.center = middle + slope * 0.5 * (n + 1)


@compiled
def keep(s, u, step):  # type: ignore[no-untyped-def]
    """Means of all rows, fault included: what the fit of an onset reads. Called before the row is counted."""
    k = 0
    first = step
    while True:
        at = s.trail_count[k] % TRAIL
        s.trail[k, at] = u
        s.trail_step[k, at] = first
        s.trail_count[k] += 1
        if s.trail_count[k] & 1 or k == LEVELS - 1:
            return
        before = (s.trail_count[k] - 2) % TRAIL
        u = 0.5 * (s.trail[k, before] + u)
        first = s.trail_step[k, before]
        k += 1


@compiled
def own_noise(s, k, rows):  # type: ignore[no-untyped-def]
    g = float(1 << k)
    floor = s.sigma * s.sigma / g
    prior = floor
    if k >= 1:
        prior = 0.5 * s.variance[k - 1] if s.variance[k - 1] > 0 else floor
    if k >= 2 and s.variance[k - 1] > 0 and s.variance[k - 2] > 0:
        prior = s.variance[k - 1] * min(max(s.variance[k - 1] / s.variance[k - 2], 0.5), 1.0)
    n = 0
    young = np.empty(ERRORS)
    for i in range(min(s.error_count[k], ERRORS)):
        if 2 * s.error_row[k, i] >= rows:
            young[n] = s.error[k, i]
            n += 1
    q = 0.0
    if n < 4:
        n = 0
    else:
        for i in range(1, n):
            v = young[i]
            j = i - 1
            while j >= 0 and young[j] > v:
                young[j + 1] = young[j]
                j -= 1
            young[j + 1] = v
        kept = max(int(0.75 * n), 1)
        for i in range(kept):
            q += young[i] / kept
        q *= 2.714  # the lower three quarters of squares of a normal sample have this part of its variance
    weight = 0.45 * n
    s.variance[k] = max(floor, (6 * prior + weight * q) / (6 + weight))
    s.freedom[k] = 6 + weight
