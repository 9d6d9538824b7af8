"""Matrix products: operands, plans, and the loops that write them."""
