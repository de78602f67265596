"""Commands that train or draw many variants and compare them."""
