"""Chance for pauses, so that many do not come back at once; from a generator of our own.

The one that all of Python shares may have been seeded by the program that pgrun is part of: our threads must not draw from it.
"""

import random

uniform = random.Random().uniform
