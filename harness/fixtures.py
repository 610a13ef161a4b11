"""The fixtures for tests of one's own, by their public name.

In the conftest.py at the top of a suite::

    pytest_plugins = ["harness.fixtures"]

brings ``lab``, ``resource``, ``guest``, ``disk``, ``fio``, ``migrate``, ``verify`` and ``verdict``, makes an item of
each cell, and turns pytest's exit codes into the harness's.  No session that does not ask for it has any of them.
"""

pytest_plugins = ("harness.pytest_plugin.items", "harness.pytest_plugin.fixtures")
