"""The ledger of claims: what decides each, and how the decisions are shown."""

from tfp_gaps.book.ledger.claims import Ledger, in_words

__all__ = ["Ledger", "in_words"]
