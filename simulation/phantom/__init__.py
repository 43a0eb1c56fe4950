"""Phantom hospitals: simulated brain MRI with gliomas, for tests and demonstrations. They claim nothing clinical."""

from simulation.phantom.figure import write_figure
from simulation.phantom.hospitals import write_hospitals

__all__ = ["write_figure", "write_hospitals"]
