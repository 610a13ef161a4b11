"""The instrument itself is sabotaged, to see that it does not lie: what it does not notice would make it CLEAN.

Everything here is done with commands of its own, past the classes that it is meant to deceive, and is undone when the
cell is over at the latest; but for what the instrument itself has to put right before the next cell.
"""
