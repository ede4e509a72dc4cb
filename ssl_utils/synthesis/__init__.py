"""Synthetic volumes: conditional diffusion, adaptation to another scanner by LoRA, an audit of what comes out."""
