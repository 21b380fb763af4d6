"""A Django shop that texts its customers once an order is shipped, and only then."""
