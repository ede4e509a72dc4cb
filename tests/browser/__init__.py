"""JupyterLab as a reader meets it: started with its token, driven in a real browser, without a network.

A package of its own, so that the server and the browser end with it: Playwright keeps an event loop in this process.
"""
