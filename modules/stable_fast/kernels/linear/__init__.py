"""Matrix products, fused with the operations that follow them."""
