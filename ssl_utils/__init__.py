"""Self-supervised learning for 3D medical images: the thin package under the course's notebooks."""

__version__ = "0.1.0"
