"""Benchmarks of holdfast, side by side with Restate, DBOS and the ceiling of the SDK. Run with `make bench`."""
