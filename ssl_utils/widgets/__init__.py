"""What a reader moves in JupyterLab; each has a static picture beside it."""
