"""The tasks of the Celery worker under test, with a broker in the file system."""

import os
from pathlib import Path

from celery import Celery

from app import burn  # starts pyprof by code, if it is to be  # isort: skip

root = Path(os.environ["CELERY_ROOT"])
for name in ("queue", "control", "results"):
    (root / name).mkdir(exist_ok=True)
app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{root / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(root / "queue"),
    "data_folder_out": str(root / "queue"),
    "control_folder": str(root / "control"),
}


@app.task
def work():
    burn()
    return os.getpid()
