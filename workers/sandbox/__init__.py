"""The providers, played locally over HTTP and strictly by their documents, with faults and a ledger."""
