"""Settings of all selftests."""

from __future__ import annotations

# A process loads NumPy once; where pytest runs inside of a test, what that loaded first would be forgotten behind it.
import scipy.stats  # noqa: F401
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
