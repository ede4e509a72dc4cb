"""Fine-tuning, sliding-window inference, metrics."""
