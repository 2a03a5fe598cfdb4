"""What only the book needs: experiments, data sets, control, ledger, figures and runs."""
