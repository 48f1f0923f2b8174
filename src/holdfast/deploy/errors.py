"""What can go wrong while an application is deployed.

CallerError
└── InvalidDeployment    a setting, or settings that do not fit together
EngineError
├── ToolMissing          a program or package that this step needs is not installed
└── ApplyFailed          the other side (AWS, a cluster, Docker) refused or failed; its own words are in the message
"""

from __future__ import annotations

from holdfast.errors import CallerError, EngineError


class InvalidDeployment(CallerError):
    """A setting is missing, malformed, or does not fit the mechanism. Nothing was written or changed."""

    code = "HF0501"


class ToolMissing(EngineError):
    """A program or Python package that this step needs is not installed."""

    code = "HF0510"


class ApplyFailed(EngineError):
    """AWS, the cluster or a program refused or failed. Applying again is safe."""

    code = "HF0511"
