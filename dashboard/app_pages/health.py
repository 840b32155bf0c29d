"""Health: is the run well?"""

from dashboard.health import body
from dashboard.pages import LIVE_SECONDS, page

page(body, every=LIVE_SECONDS)
