"""Results, costs and claims that were recorded, and the pages that show them."""
