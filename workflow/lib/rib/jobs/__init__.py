"""Running jobs: private folder, messages, code digest, GPU lock. Results don't depend on these."""
