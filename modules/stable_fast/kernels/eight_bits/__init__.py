"""Products of 8-bit numbers (fp8 e4m3 or int8), and what makes such numbers from others."""
