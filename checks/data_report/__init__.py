"""What the model was fed, as a report: `trainvitals data RUN`. It describes and never judges; checks do that."""
