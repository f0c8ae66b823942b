"""Labels and names of samplers and schedulers, for drop-down lists."""

from __future__ import annotations

from modules.sampling.names import SAMPLER_LABELS, SCHEDULER_LABELS

SAMPLER_CHOICES = [(label, name) for name, label in SAMPLER_LABELS.items()]
SCHEDULER_CHOICES = [(label, name) for name, label in SCHEDULER_LABELS.items()]
