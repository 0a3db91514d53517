"""Whether this process was made by fork: it has none of the threads that OpenMP thinks it has.

Imported with `gomhc`, which loads compiled code only when it is called: that may be in the child.
"""

import os


class Process:
    """What a child of fork must know."""

    forked = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(Process, "forked", True))
