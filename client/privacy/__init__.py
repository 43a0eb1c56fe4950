"""The patients' privacy at the site: ledger, budget, and the audit of both."""
