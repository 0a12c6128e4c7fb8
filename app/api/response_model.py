"""`ResponseModel`: the base of answers that FastAPI documents."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """An answer, or a part of one. All its fields are sent, also those that have a default, and documented so."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)
