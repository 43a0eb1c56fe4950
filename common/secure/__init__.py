"""Secure aggregation: the server learns the sum of the sites' updates and no single one."""
