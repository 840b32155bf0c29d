"""Checks of mixture-of-experts routers, on simulated routers with the noise of documents."""
