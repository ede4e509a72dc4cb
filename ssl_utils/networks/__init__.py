"""What learns: the ViT encoder, UNETR, reconstruction heads, and moving weights between them."""
