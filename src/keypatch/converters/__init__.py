"""From sources to a store: recipe → catalog → plan → units → metadata."""
