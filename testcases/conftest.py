"""The lab's tests and the examples use the harness's fixtures, as any suite does that asks for them."""

pytest_plugins = ["harness.fixtures"]
