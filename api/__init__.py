"""The application: HTTP, sessions and runs, storage, ingestion, settings, command line."""

import os

__version__ = "0.1.0"

# Before numpy is imported: its matrix library would wake a thread a core for each small product, and let them spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
