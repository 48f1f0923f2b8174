"""`module:app` on the command line; the loading itself is shared with workflow definitions."""

from holdfast.loading import load_app

__all__ = ["load_app"]
