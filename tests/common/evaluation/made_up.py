"""Hospitals that are numbers only."""

import numpy as np


def hospital(generator, n, classes=3, skill=1.2):
    """Labels and probabilities of n patients, of some skill."""
    labels = generator.choice(classes, n, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum())
    scores = np.exp(1.5 * (generator.normal(size=(n, classes)) + skill * np.eye(classes)[labels]))
    return labels, scores / scores.sum(axis=1, keepdims=True)
