"""The study: every emulator at every training-set size and seed on one grid, compared fairly."""

from starpayne.study.plan import Job, RecoverySettings, Study, studies
from starpayne.study.run import run_study

__all__ = ["Job", "RecoverySettings", "Study", "run_study", "studies"]
