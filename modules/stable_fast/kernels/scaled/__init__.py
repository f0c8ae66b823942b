"""Numbers of 8 bits and their scales, which kernels of all rooms read or write."""
