"""What `holdfast serve` is given."""

from tests.metrics.program import application

app = application()
