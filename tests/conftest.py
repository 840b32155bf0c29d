"""Settings of all tests. Hypothesis draws the same examples in every run, so that a change alone turns a test red;
`pytest --hypothesis-profile=explore` looks for new ones, and a nightly job runs it.
"""

from hypothesis import settings

settings.register_profile("same", derandomize=True, print_blob=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("same")
