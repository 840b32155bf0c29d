"""What can be known of a model from outside: layers, routers, facts, hardware. Nothing here records or changes it."""
