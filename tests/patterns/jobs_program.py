"""A job tracker, as it comes."""

from __future__ import annotations

from holdfast.patterns import JobTracker

jobs = JobTracker("TestJobs")
SERVICES = (jobs.service,)
