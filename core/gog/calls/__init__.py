"""Parts of the call path (`gog.call_path`), each a decision of its own: the breaker, the rate limit, the hedge."""
