"""How much the catalogue holds."""

from __future__ import annotations

from sqlalchemy import func, select

from cbmir_node.catalog import schema
from cbmir_node.catalog.database import Catalog


def count_objects(catalog: Catalog) -> dict[str, int]:
    """Return the number of patients, studies, series and instances."""
    tables = {
        "patients": schema.patients,
        "studies": schema.studies,
        "series": schema.series,
        "instances": schema.instances,
    }
    with catalog.read() as connection:
        return {
            name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            for name, table in tables.items()
        }


def has_instances(catalog: Catalog) -> bool:
    """Tell whether the catalogue names any object."""
    with catalog.read() as connection:
        return connection.execute(select(schema.instances.c.id).limit(1)).first() is not None
