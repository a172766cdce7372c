"""The network that reads a line of digits column by column.

For every second column of a strip it gives how likely the middle of each digit is there, or of none
(A. Graves et al., "Connectionist Temporal Classification", 2006).
"""

from protocol.chunk import CLASSES

STRIP_HEIGHT = 28  # px
STRIDE = 2  # px: a column of the answer covers this much of the strip's width
BLANK = CLASSES  # the class, after the ten digits, of a column that is no digit's middle
