from rib.project import *  # noqa: F403
