"""Running a job: private folder, messages, code digest and GPU lock.

Results do not depend on this package.
"""
