"""sidecar: usage limits, prepaid top-ups and credits, answered beside the application."""

__version__ = "0.1.0"
