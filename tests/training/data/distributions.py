"""Comparison of two ways to draw views, by what each draw gives."""

from __future__ import annotations

import cv2
import numpy as np


def close(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Differences of the means over axis 0, in standard errors."""
    error = np.sqrt(ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs))
    return np.abs(ours.mean(0) - theirs.mean(0)) / np.maximum(error, 1e-12)


def measures(view: np.ndarray) -> list[float]:
    """Mean colour, contrast, saturation, hue, sharpness, and which side is brighter."""
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY).astype(float)
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV).astype(float)
    sharpness = np.log1p(np.abs(cv2.Laplacian(grey, cv2.CV_64F)).mean())
    half = grey.shape[1] // 2
    side = grey[:, :half].mean() - grey[:, half:].mean()
    angle = np.deg2rad(2 * hsv[..., 0])
    return [
        *view.mean((0, 1)),
        grey.std(),
        hsv[..., 1].mean(),
        np.cos(angle).mean(),
        np.sin(angle).mean(),
        sharpness,
        side,
    ]
