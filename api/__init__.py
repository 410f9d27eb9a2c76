"""The application: HTTP, sessions and runs, storage, ingestion, settings, command line."""

import os

__version__ = "0.1.0"

# Before numpy is imported: its matrix library would wake a thread a core for each small product, and let them spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before ONNX Runtime is imported: it would write a device's id into the home folder, and report its use to its maker
# (https://github.com/microsoft/onnxruntime/pull/27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
