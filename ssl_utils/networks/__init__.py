"""What learns: encoders, segmentation networks, heads, and moving weights between them."""

NETWORKS = {"unetr": "UNETR", "unet": "UNet"}
