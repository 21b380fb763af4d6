"""Print the OpenAPI document: `python -m workers.api > docs/openapi.json`."""

from __future__ import annotations

import json
import sys

from workers.api.app import application

sys.stdout.write(json.dumps(application().openapi(), indent=2, ensure_ascii=False) + "\n")
