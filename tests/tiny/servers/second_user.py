"""Commands as another user than root."""

import os

# Before a command: root then needs permissions as everybody does.
WITHOUT_OVERRIDE = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
