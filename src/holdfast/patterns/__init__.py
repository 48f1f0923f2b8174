"""Patterns for durable handlers, on the public restate-sdk only: they run on the embedded engine and on Restate."""

from holdfast.patterns.fan_out import Outcome, Progress, batches, fan_out, progress_to_state

__all__ = ["Outcome", "Progress", "batches", "fan_out", "progress_to_state"]
