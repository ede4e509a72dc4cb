"""Interactive widgets for JupyterLab; each comes with a static figure."""
