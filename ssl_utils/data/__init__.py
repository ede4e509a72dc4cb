"""Data: named datasets, datalists, the phantom, the doctor, preprocessing and the cache."""
