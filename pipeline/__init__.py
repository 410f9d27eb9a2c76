"""What a run is made of: events, ports, bus, runner and registry. Knows nothing of HTTP or of a database."""
