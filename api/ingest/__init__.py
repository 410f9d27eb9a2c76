"""Documents from files: found, read, and made into normalised Markdown."""
