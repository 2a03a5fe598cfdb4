"""The ledger of claims: what decides each, and how the decisions are shown."""
