"""What other libraries know `.inr` files by."""
