"""Says how many tests of a JUnit file really ran; status 1 where none did."""

import sys
from xml.etree import ElementTree

try:
    suites = list(ElementTree.parse(sys.argv[1]).iter("testsuite"))
except (OSError, ElementTree.ParseError) as error:
    sys.exit(f"no results: {error}")
tests, skipped = (sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "skipped"))
print(f"{tests - skipped} ran, {skipped} skipped")
sys.exit(tests <= skipped)
