"""Data: named datasets, datalists, the phantom, the doctor, preprocessing, the cache, crops."""
