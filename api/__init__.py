"""The application: HTTP, sessions and runs, storage, ingestion, settings, command line."""

__version__ = "0.1.0"
