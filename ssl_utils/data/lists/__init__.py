"""A list or a folder becomes a Datalist; no voxel is read."""
