"""DRBD divergence harness: do the two replicas of a lab still hold the same data, and if not, why?"""

__version__ = "0.1.0"
