"""DRBD divergence harness: do two replicas still hold the same data, and if not, why?"""

__version__ = "0.1.0"
