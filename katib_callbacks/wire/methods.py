"""The names that gRPC sees: services and their methods' paths."""

DB_MANAGER_SERVICE = "api.v1.beta1.DBManager"
HEALTH_SERVICE = "grpc.health.v1.Health"
EARLY_STOPPING_SERVICE = "katib_callbacks.v1.EarlyStopping"

REPORT_OBSERVATION_LOG = f"/{DB_MANAGER_SERVICE}/ReportObservationLog"
GET_OBSERVATION_LOG = f"/{DB_MANAGER_SERVICE}/GetObservationLog"
DELETE_OBSERVATION_LOG = f"/{DB_MANAGER_SERVICE}/DeleteObservationLog"
HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
HEALTH_WATCH = f"/{HEALTH_SERVICE}/Watch"
JUDGE = f"/{EARLY_STOPPING_SERVICE}/Judge"

FIRST_REPORT = "katib-callbacks-first-report"
"""Metadata of ours with a process's first report for a trial, which Katib's own DB manager passes over."""

CLEARS_ATTEMPT = "katib-callbacks-clears-attempt"
"""Metadata of ours with a deletion of the rows of a trial's earlier attempt: the trial itself goes on."""

EARLIER_ROWS = "katib-callbacks-earlier-rows"
"""Trailing metadata with which our DB manager answers it, where the trial has rows from before the reported ones."""
