"""Datalists from JSON files and from folders; no voxel of an image is read."""
