from tests.simulation.conftest import folder

__all__ = ["folder"]
