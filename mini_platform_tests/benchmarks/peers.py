"""The same file by other tools, into a table with the same key and index. Run in an environment that has the tool.

    python peers.py dlt|pandas URL FILE [prepare]

With `prepare` the table is made and given its indexes, from the file's first rows; that is not measured. dlt: Arrow tables,
merge with the upsert strategy; no rules, no quarantine, no line numbers. pandas: read_csv, then to_sql with an
`ON CONFLICT` insert method in chunks, as its documentation shows; likewise.
"""

import os
import shutil
import sys

KEY = ("station_id", "date")


def by_dlt(url: str, path: str, *, prepare: bool) -> None:
    """Load with dlt."""
    import dlt
    import pyarrow as pa
    from pyarrow import csv

    types = {"station_id": pa.string(), "date": pa.date32(), "temp_c": pa.float64(), "precip_mm": pa.float64()}

    @dlt.resource(
        name="measurements", write_disposition={"disposition": "merge", "strategy": "upsert"}, primary_key=KEY
    )
    def measurements():
        rows = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
        yield rows.slice(0, 1) if prepare else rows

    pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="by_dlt")
    pipeline.run(measurements())
    if prepare:
        with pipeline.sql_client() as client:
            client.execute_sql("ALTER TABLE by_dlt.measurements ADD PRIMARY KEY (station_id, date)")
            client.execute_sql("CREATE INDEX by_dlt_date ON by_dlt.measurements (date)")


def by_pandas(url: str, path: str, *, prepare: bool) -> None:
    """Load with pandas."""
    import pandas as pd
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import insert

    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://", 1))
    if prepare:
        table = (
            'station_id text COLLATE "C", date date, temp_c float8, precip_mm float8, PRIMARY KEY (station_id, date)'
        )
        with engine.begin() as conn:
            conn.execute(sa.text(f"CREATE TABLE by_pandas ({table})"))
            conn.execute(sa.text("CREATE INDEX by_pandas_date ON by_pandas (date)"))
        return

    def upsert(table, conn, columns, rows):
        statement = insert(table.table).values([dict(zip(columns, row, strict=True)) for row in rows])
        new = {name: statement.excluded[name] for name in columns if name not in KEY}
        conn.execute(statement.on_conflict_do_update(index_elements=KEY, set_=new))

    frame = pd.read_csv(path, parse_dates=["date"])
    frame.to_sql("by_pandas", engine, if_exists="append", index=False, method=upsert, chunksize=5000)


if __name__ == "__main__":
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["DLT_DATA_DIR"] = data_folder = os.environ["MINI_PLATFORM_HOME"] + "/dlt"
    if "prepare" in sys.argv[4:]:
        shutil.rmtree(data_folder, ignore_errors=True)
    {"dlt": by_dlt, "pandas": by_pandas}[sys.argv[1]](sys.argv[2], sys.argv[3], prepare="prepare" in sys.argv[4:])
