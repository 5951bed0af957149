"""THE list of what is measured, in the order of printing."""

from . import api, idle, neighbours, pods, service

ITEMS = {"idle": idle, "pods": pods, "service": service, "neighbours": neighbours, "api": api}
