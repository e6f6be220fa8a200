"""Between real machines: certificates and keys, what starts each role, checks, and the run."""
