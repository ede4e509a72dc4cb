"""What the encoder is for: fine-tuning, sliding-window inference, honest metrics."""
