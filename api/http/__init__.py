"""The HTTP interface: one module per route family."""
