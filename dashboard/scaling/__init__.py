"""Parts of the Scaling page: ladders, frontier, planner, forecast fan. The fits are made in checks/scaling."""
