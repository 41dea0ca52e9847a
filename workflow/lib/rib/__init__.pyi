from rib.api import *  # noqa: F403
